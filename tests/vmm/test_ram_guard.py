"""A hole in a guarded RAM file is said to be made and is not; any other is made; guarded is what is in use."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from firkin.vmm.ram_guard import RamGuard, identity_of
from firkin.vmm.spawn import spawn, unguard

BLOCK = 1 << 16


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    ram, disk = tmp_path / "ram", tmp_path / "disk"
    for path in (ram, disk):
        path.write_bytes(b"x" * BLOCK)
    return ram, disk


def punch(path: Path, ram: int, *more: str) -> int:
    argv = ["fallocate", *(more or ("--punch-hole",)), "--offset", "0", "--length", "4096", str(path)]
    return spawn(argv, ram=ram, stderr=subprocess.DEVNULL).wait()


def test_it_works_here() -> None:
    assert RamGuard.works()


def test_only_the_guarded_file_stays_whole(files: tuple[Path, Path]) -> None:
    ram, disk = files
    with ram.open("rb") as file:
        known = identity_of(file.fileno())
        assert punch(ram, file.fileno()) == 0
        assert punch(disk, file.fileno()) == 0
        assert ram.read_bytes() == b"x" * BLOCK
        assert disk.read_bytes() == bytes(4096) + b"x" * (BLOCK - 4096)
        unguard(known)
        unguard(known)
        # Nobody uses it any more: a file of the same inode would be another.
        with disk.open("rb") as other:
            assert punch(ram, other.fileno()) == 0
            unguard(identity_of(other.fileno()))
        assert ram.read_bytes()[:4096] == bytes(4096)


def test_a_child_without_ram_is_not_asked_about(files: tuple[Path, Path]) -> None:
    ram, _ = files
    with ram.open("rb") as file:
        sleeper = spawn(["sleep", "600"], ram=file.fileno(), stderr=subprocess.DEVNULL)
        status = Path(f"/proc/{sleeper.pid}/status").read_text()
        assert "Seccomp:\t2" in status
        plain = spawn(["sleep", "600"], stderr=subprocess.DEVNULL)
        assert "Seccomp:\t0" in Path(f"/proc/{plain.pid}/status").read_text()
        for child in (sleeper, plain):
            child.kill()
            child.wait()
        unguard(identity_of(file.fileno()))


def test_other_ways_of_fallocate_are_left_alone(files: tuple[Path, Path]) -> None:
    ram, disk = files
    with ram.open("rb") as file:
        assert punch(disk, file.fileno(), "--zero-range") == 0
        assert disk.read_bytes()[:4096] == bytes(4096)
        unguard(identity_of(file.fileno()))
