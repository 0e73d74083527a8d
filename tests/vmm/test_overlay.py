"""The qcow2 files that we write, as QEMU's own tools see them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from firkin.vmm.overlay import write_overlay, write_window

pytestmark = pytest.mark.needs_tool("qemu-img", "qemu-io")

TIB = 1 << 40


def info(*arguments: str) -> dict[str, object]:
    shown = subprocess.run(["qemu-img", *arguments, "--output=json"], capture_output=True, text=True, check=True)
    return dict(json.loads(shown.stdout))


def open_new(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


@pytest.mark.parametrize("capacity", [TIB, 4 * TIB, 8 * TIB, 1 << 30])
def test_an_overlay_is_sound_small_and_as_large_as_asked(tmp_path: Path, capacity: int) -> None:
    path = tmp_path / "overlay"
    fd = open_new(path)
    write_overlay(fd, capacity)
    os.close(fd)
    assert info("check", str(path))["check-errors"] == 0
    assert info("info", str(path))["virtual-size"] == capacity
    assert path.stat().st_blocks * 512 <= 64 << 10


def test_the_guests_writes_stay_in_the_overlay(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"\x11" * 100_000)
    fd = open_new(tmp_path / "overlay")
    write_overlay(fd, TIB)
    os.close(fd)
    options = f"driver=qcow2,file.driver=file,file.filename={tmp_path}/overlay"
    options += f",backing.driver=raw,backing.file.driver=file,backing.file.filename={image},backing.read-only=on"
    commands = ["read -P 0x11 0 4096", "write -P 0x22 4096 4096", "read -P 0x22 4096 4096", "read -P 0x11 8192 4096"]
    commands.append("read -P 0 900g 4096")
    done = subprocess.run(
        ["qemu-io", "--image-opts", options, *(word for command in commands for word in ("-c", command))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "verification failed" not in done.stdout
    assert image.read_bytes() == b"\x11" * 100_000


@pytest.mark.parametrize("size", [0, 512, 5_000_001, 3 << 30])
def test_a_window_shows_the_image_and_writes_it(tmp_path: Path, size: int) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(size)
    fd = open_new(tmp_path / "window")
    write_window(fd, TIB, size)
    os.close(fd)
    options = f"driver=qcow2,file.driver=file,file.filename={tmp_path}/window"
    options += f",data-file.driver=raw,data-file.file.driver=file,data-file.file.filename={image}"
    assert info("check", "--image-opts", options)["check-errors"] == 0
    if size:
        at = size // 512 * 512 - 512
        done = subprocess.run(
            ["qemu-io", "--image-opts", options, "-c", f"write -P 0x33 {at} 512", "-c", "read -P 0 500g 512"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        with image.open("rb") as file:
            file.seek(at)
            assert file.read(512) == b"\x33" * 512
    assert image.stat().st_size - size < 512
