"""RAM files: copied with holes, equal by content, and known to be untouched by their identity."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from firkin.vmm.ramfile import copy_saved, copy_sparse, digest, identity

MIB = 1 << 20
writes = st.lists(st.tuples(st.integers(0, 4 * MIB - 1), st.binary(min_size=1, max_size=9000)), max_size=12)


def ram(path: Path, content: list[tuple[int, bytes]], size: int = 4 * MIB) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.ftruncate(fd, size)
    for offset, data in content:
        os.pwrite(fd, data[: size - offset], offset)
    return fd


@settings(max_examples=60)
@given(writes)
def test_a_copy_has_the_same_content_and_digest(tmp_path_factory: object, content: list[tuple[int, bytes]]) -> None:
    folder = tmp_path_factory.mktemp("ram")  # type: ignore[attr-defined]
    source, copy = ram(folder / "a", content), ram(folder / "b", [], 0)
    copy_sparse(source, copy)
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    assert digest(source) == digest(copy)
    fork = os.memfd_create("fork")
    copy_saved(copy, fork)
    assert os.pread(fork, 4 * MIB + 1, 0) == (folder / "a").read_bytes()
    for fd in (source, copy, fork):
        os.close(fd)


def test_pages_of_zeros_take_no_room(tmp_path: Path) -> None:
    source = ram(tmp_path / "a", [(0, bytes(4 * MIB)), (MIB, b"\1")])
    copy = ram(tmp_path / "b", [], 0)
    assert os.fstat(source).st_blocks * 512 >= 4 * MIB
    assert copy_sparse(source, copy) == 4096
    assert os.fstat(copy).st_blocks * 512 <= 64 << 10
    assert digest(copy) == digest(source)


def test_one_changed_byte_changes_the_digest_and_the_identity(tmp_path: Path) -> None:
    fd = ram(tmp_path / "a", [(5000, b"abc")])
    before, known = digest(fd), identity(fd)
    assert identity(fd) == known
    os.pwrite(fd, b"x", 3 * MIB)
    assert digest(fd) != before
    assert identity(fd) != known
    os.close(fd)


def test_times_that_are_set_back_do_not_hide_a_write(tmp_path: Path) -> None:
    fd = ram(tmp_path / "a", [(0, b"abc")])
    known = identity(fd)
    times = os.fstat(fd)
    os.pwrite(fd, b"x", 0)
    os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert identity(fd) != known
    os.close(fd)


def test_a_shifted_page_is_another_content(tmp_path: Path) -> None:
    one, other = ram(tmp_path / "a", [(0, b"abc")]), ram(tmp_path / "b", [(4096, b"abc")])
    assert digest(one) != digest(other)
