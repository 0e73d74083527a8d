"""The pages that each clone writes first: what the library beside QEMU does with a list of them, right or wrong."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.vmm.assets import PRELOAD_LIBRARY, guest_folder

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 64
# What QEMU does with a clone's RAM. Prints the numbers of pages that are no longer the file's (proc_pid_pagemap(5)),
# and whether all of it still is what the file says.
PROGRAM = """
import ctypes, mmap, os, struct, sys
path, advice = sys.argv[1], int(sys.argv[2])
size = os.path.getsize(path)
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
fd = os.open(path, os.O_RDONLY)
address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, fd, 0)
assert libc.madvise(address, size, advice) == 0
with open("/proc/self/pagemap", "rb") as pagemap:
    pagemap.seek(address // mmap.PAGESIZE * 8)
    entries = struct.unpack(f"<{size // mmap.PAGESIZE}Q", pagemap.read(size // mmap.PAGESIZE * 8))
print([number for number, entry in enumerate(entries) if entry >> 63 & 1 and not entry >> 61 & 1])
print(ctypes.string_at(address, size) == open(path, "rb").read())
"""
DONTFORK, MERGEABLE = 10, 12


def changed(tmp_path: Path, content: bytes | None, *, advice: int = DONTFORK, fd: str | None = None) -> list[int]:
    """The pages that a program with that list has of its own as soon as it has mapped its RAM."""
    ram = tmp_path / "ram"
    ram.write_bytes(b"".join(bytes([number]) * PAGE for number in range(PAGES)))
    environ = {"LD_PRELOAD": str(guest_folder() / PRELOAD_LIBRARY)}
    fds = []
    if content is not None:
        (tmp_path / "list").write_bytes(content)
        fds = [os.open(tmp_path / "list", os.O_RDONLY)]
        environ["FIRKIN_FIRST_PAGES"] = fd or str(fds[0])
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, ram, str(advice)],
            env=environ,
            pass_fds=fds,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for number in fds:
            os.close(number)
    pages, same = done.stdout.splitlines()
    assert same == "True"
    return [int(number) for number in pages.strip("[]").split(",") if number]


def listed(*runs: tuple[int, int], size: int = PAGES * PAGE) -> bytes:
    return struct.pack("<Q", size) + b"".join(struct.pack("<II", *run) for run in runs)


def test_those_that_are_listed_are_copied_and_no_others(tmp_path: Path) -> None:
    assert changed(tmp_path, listed((0, 1), (5, 3), (PAGES - 1, 1))) == [0, 5, 6, 7, PAGES - 1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        listed()[:7],
        listed(),
        listed((5, 3))[:-1],
        listed((5, 3), size=PAGES * PAGE + 1),
        listed((PAGES, 1), (PAGES - 1, 2), (0, PAGES + 1), (1 << 31, 1 << 31), (0xFFFFFFFF, 0xFFFFFFFF)),
        os.urandom(64 << 10),
    ],
    ids=["empty", "torn", "no size", "no runs", "half a run", "of other RAM", "outside", "noise"],
)
def test_a_list_that_makes_no_sense_copies_nothing(tmp_path: Path, content: bytes) -> None:
    assert changed(tmp_path, content) == []


def test_only_so_much_of_a_list_is_read(tmp_path: Path) -> None:
    room = ((32 << 10) - 8) // 8
    assert changed(tmp_path, listed(*[(1, 1)] * (room - 1), (2, 1), (3, 1))) == [1, 2]


@pytest.mark.parametrize("fd", ["-1", "9999", "x", "4294967296", " ", "\udcff"])
def test_a_descriptor_that_is_none_copies_nothing(tmp_path: Path, fd: str) -> None:
    assert changed(tmp_path, listed((5, 3)), fd=fd) == []


def test_other_advice_and_no_list_copy_nothing(tmp_path: Path) -> None:
    assert changed(tmp_path, listed((5, 3)), advice=MERGEABLE) == []
    assert changed(tmp_path, None) == []
