"""Kernels: found in their order, taken out of bzImages of every compression."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import lz4.block
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from firkin.errors import BootError, InvalidInputError
from firkin.types.state import StateDirs
from firkin.vmm.kernel import KernelImage, extract_vmlinux, find_kernel

VMLINUX = b"\x7fELF" + bytes(range(256)) * 40


def bzimage(payload: bytes, setup_sectors: int = 4) -> bytes:
    """The least that the boot protocol asks for: setup code, its magic numbers, and a payload right behind it."""
    setup = bytearray((setup_sectors + 1) * 512)
    setup[0x1F1] = setup_sectors
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, 0, len(payload))
    return bytes(setup) + payload


def with_size(compressed: bytes, size: int = len(VMLINUX)) -> bytes:
    return compressed + struct.pack("<I", size)


def lz4_legacy(data: bytes) -> bytes:
    block = lz4.block.compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress, lz4_legacy],
    ids=["gzip", "bzip2", "xz", "zstd", "lz4"],
)
def test_vmlinux_comes_out_of_a_bzimage(compress: Callable[[bytes], bytes]) -> None:
    assert extract_vmlinux(bzimage(with_size(compress(VMLINUX)))) == VMLINUX


def test_elf_and_arm_images_are_taken_as_they_are() -> None:
    arm = bytearray(4096)
    arm[0x38:0x3C] = b"ARM\x64"
    assert extract_vmlinux(VMLINUX) is VMLINUX
    assert extract_vmlinux(bytes(arm)) == arm
    assert extract_vmlinux(gzip.compress(arm)) == arm


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "neither"),
        (b"#!/bin/sh\n" * 100, "neither"),
        (bzimage(with_size(gzip.compress(VMLINUX)))[:-9], "cut off"),
        (bzimage(with_size(gzip.compress(VMLINUX))[:40] + with_size(b"")), "damaged"),
        (bzimage(with_size(gzip.compress(b"not a kernel" * 99), 1188)), "not a kernel"),
        (bzimage(with_size(b"LZO?" * 9)), "unknown way"),
        (bzimage(gzip.compress(VMLINUX) + b"\xff\xff\xff\xff"), "4294967295 bytes"),
    ],
)
def test_what_is_no_kernel_is_refused_by_name(data: bytes, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        extract_vmlinux(data)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 2000), st.sampled_from([gzip.compress, lzma.compress, lz4_legacy]))
def test_damaged_images_give_errors_only(noise: bytes, at: int, compress: Callable[[bytes], bytes]) -> None:
    image = bytearray(bzimage(with_size(compress(VMLINUX))))
    at = min(at, len(image))
    image[at : at + len(noise)] = noise
    try:
        result = extract_vmlinux(bytes(image))
    except InvalidInputError:
        return
    assert result[:4] == b"\x7fELF" or result[0x38:0x3C] == b"ARM\x64"


def unpack(root: Path, release: str) -> Path:
    """A folder as a kernel's package leaves it."""
    (root / "boot").mkdir(parents=True)
    (root / "lib/modules" / release).mkdir(parents=True)
    image = root / "boot" / f"vmlinuz-{release}"
    image.write_bytes(bzimage(b"x" * 16))
    return image


def test_the_newest_unpacked_kernel_is_the_default(tmp_path: Path) -> None:
    dirs = StateDirs.under(tmp_path / "home")
    folder = tmp_path / "kernels"
    unpack(folder / "6.1.0-9-cloud-amd64", "6.1.0-9-cloud-amd64")
    newest = unpack(folder / "6.1.0-10-cloud-amd64", "6.1.0-10-cloud-amd64")
    found = find_kernel(dirs, {"FIRKIN_KERNEL_DIR": str(folder)})
    assert found == KernelImage(newest, folder / "6.1.0-10-cloud-amd64/lib/modules/6.1.0-10-cloud-amd64")


def test_a_named_kernel_wins_and_brings_its_modules(tmp_path: Path) -> None:
    image = unpack(tmp_path / "mine", "6.6.1-mine")
    named = {"FIRKIN_KERNEL": str(image), "FIRKIN_KERNEL_DIR": str(tmp_path)}
    found = find_kernel(StateDirs.under(tmp_path / "home"), named)
    assert found == KernelImage(image, tmp_path / "mine/lib/modules/6.6.1-mine")
    assert KernelImage.from_file(image, tmp_path).modules == tmp_path


def test_a_missing_kernel_is_a_lasting_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no kernel at"):
        KernelImage.from_file(tmp_path / "absent")
    with pytest.raises(InvalidInputError, match="no kernel at"):
        find_kernel(StateDirs.under(tmp_path), {"FIRKIN_KERNEL": str(tmp_path / "absent")})
    assert not BootError("there is no kernel to boot").transient
