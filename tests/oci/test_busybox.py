"""The embedded image is a usable root filesystem, the same bytes each time, and only of a static busybox."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from firkin.errors import ImageError
from firkin.oci import ImageStore
from firkin.oci.busybox import make_busybox
from firkin.types.state import StateDirs


def test_its_layer_is_a_root_filesystem(store: ImageStore) -> None:
    image = store.ensure_busybox()
    with tarfile.open(
        fileobj=io.BytesIO(store.content.path(image.layers[0].descriptor.digest).read_bytes())
    ) as archive:
        found = {member.name: member for member in archive}
        passwd = archive.extractfile("etc/passwd")
        assert passwd is not None
        assert passwd.read().startswith(b"root:x:0:0:root:/root:/bin/sh\n")
    assert {name for name in found if "/" not in name} >= {
        "bin",
        "dev",
        "etc",
        "home",
        "proc",
        "root",
        "sys",
        "tmp",
        "var",
    }
    assert found["tmp"].mode == 0o1777
    assert found["root"].mode == 0o700
    names = {Path(name).name for name, member in found.items() if member.linkname == "bin/busybox"}
    assert {"sh", "echo", "sleep", "ls", "cat", "mount", "id"} <= names


def test_it_is_the_same_on_every_store(store: ImageStore, tmp_path: Path) -> None:
    other = ImageStore(StateDirs.under(tmp_path / "other"))
    assert other.ensure_busybox().digest == store.ensure_busybox().digest


def test_its_program_runs_in_a_root_of_its_own(store: ImageStore, tmp_path: Path) -> None:
    image = store.ensure_busybox()
    subprocess.run(["tar", "-xf", store.content.path(image.layers[0].descriptor.digest), "-C", tmp_path], check=True)
    ran = subprocess.run([tmp_path / "bin/sh", "-c", "echo $((6 * 7))"], capture_output=True, text=True, env={})
    assert ran.stdout == "42\n"


@pytest.mark.parametrize(("content", "match"), [(b"#!/bin/sh\n", "not a static program"), (None, "no busybox")])
def test_another_program_is_refused(store: ImageStore, tmp_path: Path, content: bytes | None, match: str) -> None:
    program = tmp_path / "busybox"
    if content is not None:
        program.write_bytes(content)
    with pytest.raises(ImageError, match=match):
        make_busybox(store.content, store.names, program)
    with pytest.raises(ImageError, match="not a static program"):
        make_busybox(store.content, store.names, Path("/bin/ls"))
