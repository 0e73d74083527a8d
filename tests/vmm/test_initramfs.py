"""The initramfs: what other tools read out of it, and the same bytes each time."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from firkin.vmm.initramfs import Entry, directory, file, newc


def read(archive: bytes) -> list[tuple[str, int, bytes]]:
    """A reader written from the kernel's page alone."""
    entries, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        at += (110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries
        entries.append((name, fields[1], archive[at : at + fields[6]]))
        at += (fields[6] + 3) // 4 * 4


names = st.text(st.sampled_from("abc/-_.é"), min_size=1, max_size=30)
modes = st.sampled_from([stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755])
entries = st.builds(Entry, names, modes, st.binary(max_size=300))


@given(st.lists(entries, max_size=8))
def test_what_goes_in_comes_out(given_entries: list[Entry]) -> None:
    archive = newc(given_entries)
    assert read(archive) == [(entry.path, entry.mode, entry.data) for entry in given_entries]
    assert len(archive) % 512 == 0
    assert newc(given_entries) == archive


def test_cpio_unpacks_it(tmp_path: Path) -> None:
    archive = newc([directory("bin"), file("bin/tool", b"#!/bin/sh\n", 0o755), file("empty", b"")])
    subprocess.run(["busybox", "cpio", "-i"], input=archive, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "bin/tool").stat().st_mode == stat.S_IFREG | 0o755
    assert (tmp_path / "empty").stat().st_size == 0
