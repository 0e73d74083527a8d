"""Finding the emulator, its disk and its registration, without a VM."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from firkin.core.emulation import emulate, emulator_disk, find_emulator, registration
from firkin.core.option_inputs import container_options
from firkin.core.prepare import PreparedVm, prepare
from firkin.errors import ImageError
from firkin.ext4 import ImageReader
from firkin.oci.config import ImageConfig
from firkin.oci.image import Image
from firkin.oci.rootfs import Rootfs
from firkin.types import ContainerId, Digest, Platform

AMD64 = Platform("amd64")


def prepared(disk: Path, architecture: str, **inputs: object) -> PreparedVm:
    digest = Digest("sha256:" + "0" * 64)
    config = ImageConfig(cmd=("/bin/true",), architecture=architecture, labels=MappingProxyType({}))
    image = Image(None, digest, Platform(architecture), config, (), digest, "", 0)
    options = container_options(**inputs)  # type: ignore[arg-type]
    name = ContainerId("unit")
    return prepare(options, Rootfs.oci_bundle(image), container_id=name, root_path=disk, host=AMD64)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH with two static "emulators"."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("qemu-aarch64-static", "qemu-s390x-static"):
        shutil.copy("/bin/busybox", folder / name)
    return folder


def test_the_emulator_follows_the_disks_of_the_container(programs: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer.img"
    layer.touch()
    vm = prepared(tmp_path / "root.ext4", "s390x", writable_layer=layer)
    found = emulate(vm, tmp_path / "cache", host=AMD64, path=str(programs))
    assert found.architecture == "s390x"
    assert found.config.disks[:-1] == vm.config.disks
    assert (found.config.disks[-1].read_only, found.config.disks[-1].overlay) == (True, False)
    assert found.device == (3, found.config.disks[-1].path)
    assert found.config == replace(vm.config, disks=found.config.disks)


def test_asked_for_with_an_image_of_the_host_it_is_the_likeliest_other(programs: Path, tmp_path: Path) -> None:
    vm = prepared(tmp_path / "root.ext4", "amd64", emulate=True)
    assert emulate(vm, tmp_path / "cache", host=AMD64, path=str(programs)).architecture == "arm64"


def test_a_missing_emulator_says_what_to_install(programs: Path, tmp_path: Path) -> None:
    vm = prepared(tmp_path / "root.ext4", "riscv64")
    with pytest.raises(ImageError, match=r"no emulator for riscv64.*\(apt install qemu-user-static\)"):
        emulate(vm, tmp_path / "cache", host=AMD64, path=str(programs))
    assert not (tmp_path / "cache").exists()


def test_a_program_that_needs_a_loader_is_of_no_use_in_the_guest(tmp_path: Path) -> None:
    shutil.copy(os.path.realpath(sys.executable), tmp_path / "qemu-aarch64-static")
    with pytest.raises(ImageError, match="no emulator for arm64"):
        find_emulator("arm64", str(tmp_path))
    shutil.copy("/bin/busybox", tmp_path / "qemu-aarch64")
    assert find_emulator("arm64", str(tmp_path)) == tmp_path / "qemu-aarch64"


def test_the_disk_holds_the_program_and_is_made_once_for_its_content(programs: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    program = programs / "qemu-aarch64-static"
    disk = emulator_disk(program, cache)
    made = disk.stat()
    with ImageReader(disk) as reader:
        assert reader.stat("/qemu").mode & 0o777 == 0o755
        assert reader.read("/qemu") == program.read_bytes()
    assert emulator_disk(programs / "qemu-s390x-static", cache) == disk, "the same bytes"
    assert disk.stat() == made
    program.write_bytes(program.read_bytes() + b"2")
    assert emulator_disk(program, cache) != disk
    assert sorted(path.suffix for path in cache.iterdir()) == [".ext4", ".ext4"]


def test_killed_before_the_disk_has_a_name(programs: Path, tmp_path: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from firkin.core.emulation import emulator_disk
        emulator_disk(*map(Path, sys.argv[1:]))
    """
    command = [sys.executable, "-c", code, str(programs / "qemu-s390x-static"), str(tmp_path / "cache")]
    point = "emulation.publish"
    environ = {**os.environ, "FIRKIN_FAULT": f"{point}=kill"}
    assert subprocess.run(command, env=environ, check=False).returncode == -signal.SIGKILL
    assert not list((tmp_path / "cache").glob("*.ext4"))
    disk = emulator_disk(programs / "qemu-s390x-static", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [disk]


def test_an_emulator_that_can_not_be_read_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"can't hand .*/none to a VM: No such file"):
        emulator_disk(tmp_path / "none", tmp_path / "cache")


@pytest.mark.parametrize(
    ("architecture", "bits", "order", "machine"),
    [("amd64", 2, "<", 62), ("arm64", 2, "<", 183), ("arm", 1, "<", 40), ("s390x", 2, ">", 22)],
)
def test_the_registration_tells_an_architecture_from_others(
    architecture: str, bits: int, order: str, machine: int
) -> None:
    _, name, kind, offset, magic, mask, interpreter, flags = registration(architecture).split(b":")
    assert (name[:5], kind, offset, interpreter) == (b"qemu-", b"M", b"", b"/run/firkin/emulator/qemu")
    assert set(flags) == set(b"FPOC")
    first, relevant = (bytes.fromhex(part.decode().replace("\\x", "")) for part in (magic, mask))

    def matches(**other: int) -> bool:
        parts = {"bits": bits, "type": 2, "machine": machine, "abi": 0} | other
        header = b"\x7fELF" + bytes((parts["bits"], 1 if order == "<" else 2, 1, parts["abi"])) + bytes(8)
        header += struct.pack(f"{order}HH", parts["type"], parts["machine"])
        return all(a & m == b & m for a, b, m in zip(header, first, relevant, strict=True))

    assert matches()
    assert matches(type=3), "position independent"
    assert matches(abi=3), "GNU"
    assert not matches(type=1), "an object file"
    assert not matches(machine=3)
    assert not matches(bits=3 - bits)
