"""Programs of another architecture: qemu-user of the host handed to the guest, whose kernel then runs them by it.

The emulator travels on a small read-only disk. The guest's binfmt_misc opens it once, when it is registered (flag F),
so that containers need not see it.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
import shutil
import struct
import tarfile
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from firkin import faults
from firkin.core.prepare import BlockDevice, PreparedVm
from firkin.errors import ImageError
from firkin.oci.rootfs import OciBundle
from firkin.types import Platform
from firkin.vmm import Disk, VmConfig

if TYPE_CHECKING:
    from firkin.vminitd.agent import Agent

__all__ = ["Emulation", "announce", "emulate", "emulator_disk", "find_emulator", "registration"]

_log = logging.getLogger("firkin.core.emulation")
_PUBLISH = faults.declare("emulation.publish", "the emulator's disk is written but has no name yet")

_BINFMT = "/proc/sys/fs/binfmt_misc"
_FOLDER = "/run/firkin/emulator"
_PROGRAM = "qemu"
_ROOM = 4 << 20
_PT_INTERP = 3


class _Machine(NamedTuple):
    """How qemu-user names an architecture, and the start of its ELF files: e_machine, bits, byte order."""

    qemu: str
    number: int
    bits: int = 64
    little: bool = True


# By OCI's names. Numbers: linux/elf-em.h.
_MACHINES = {
    "amd64": _Machine("x86_64", 62),
    "arm64": _Machine("aarch64", 183),
    "arm": _Machine("arm", 40, bits=32),
    "riscv64": _Machine("riscv64", 243),
    "ppc64le": _Machine("ppc64le", 21),
    "s390x": _Machine("s390x", 22, little=False),
}


class Emulation(NamedTuple):
    """What a VM needs for one further architecture: `config` has the emulator's disk, `device`."""

    architecture: str
    config: VmConfig
    device: BlockDevice

    def calls(self, agent: Agent) -> tuple[Awaitable[object], ...]:
        """Submit the calls that make the guest's kernel run such programs, before any does."""
        return (
            agent.mount("ext4", self.device.source, _FOLDER, options=("ro", "nosuid", "nodev"), mkdir=True),
            agent.mount("binfmt_misc", "binfmt_misc", _BINFMT),
            # No mode: it is the kernel's file.
            agent.write_file(f"{_BINFMT}/register", registration(self.architecture), mode=0),
        )


def emulate(prepared: PreparedVm, cache: Path, *, host: Platform | None = None, path: str | None = None) -> Emulation:
    """What it takes to run `prepared` by emulation: of its image's architecture, else of the likeliest other one.

    `cache` is a folder (`StateDirs.cache / "emulators"`) for the emulator's disk; `path` is searched in place of PATH.
    Raises `ImageError` where the host has no emulator.
    """
    host = host or Platform.current()
    image = prepared.rootfs.image.platform if isinstance(prepared.rootfs, OciBundle) else host
    architecture = image.architecture
    if architecture == host.architecture:
        architecture = "amd64" if host.architecture == "arm64" else "arm64"
    disk = emulator_disk(find_emulator(architecture, path), cache)
    disks = (*prepared.config.disks, Disk(disk, read_only=True, overlay=False, immutable=True))
    return Emulation(architecture, replace(prepared.config, disks=disks), BlockDevice(len(disks), disk))


def announce(prepared: PreparedVm) -> None:
    """Say that an image runs by emulation because it must: nobody asked for it, and it is slow."""
    if isinstance(prepared.rootfs, OciBundle):
        image = prepared.rootfs.image
        _log.warning("%s is for %s, this host is %s: it runs by emulation", image, image.platform, Platform.current())


def find_emulator(architecture: str, path: str | None = None) -> Path:
    """The host's static qemu-user for an architecture (OCI's name); `path` is searched in place of PATH.

    Raises `ImageError` that says what to install.
    """
    name = f"qemu-{_MACHINES[architecture].qemu}"
    for candidate in (f"{name}-static", name):
        found = shutil.which(candidate, path=path)
        if found is not None and _is_static(Path(found)):
            return Path(found).resolve()
    raise ImageError(
        f"there is no emulator for {architecture}: {name}-static is missing", hint="apt install qemu-user-static"
    )


def emulator_disk(program: Path, cache: Path) -> Path:
    """A read-only ext4 image below `cache` that holds `program` alone, made where it is not there yet.

    It is named by the program's content. Raises `ImageError`.
    """
    try:
        with program.open("rb") as file:
            path = cache / f"{hashlib.file_digest(file, 'sha256').hexdigest()}.ext4"
        if path.exists():
            return path
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(cache, os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Held by the one who writes; so what bears the unfinished one's name then is a dead process's.
            fcntl.flock(folder, fcntl.LOCK_EX)
            if not path.exists():
                _write_disk(program.read_bytes(), cache / "unfinished", path)
        finally:
            os.close(folder)
    except OSError as error:
        raise ImageError(f"can't hand {program} to a VM: {error.strerror or error}") from error
    return path


def _write_disk(program: bytes, unfinished: Path, path: Path) -> None:
    from firkin.ext4 import write_image

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        member = tarfile.TarInfo(_PROGRAM)
        member.size, member.mode = len(program), 0o755
        tar.addfile(member, io.BytesIO(program))
    layer.seek(0)
    write_image([layer], unfinished, size=-(-(len(program) + _ROOM) // _ROOM) * _ROOM)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    faults.point(_PUBLISH)
    unfinished.chmod(0o400)
    unfinished.rename(path)


def registration(architecture: str) -> bytes:
    """The line that makes binfmt_misc (Documentation/admin-guide/binfmt-misc.rst) run ELF files of an architecture.

    They are told by their first 20 bytes (System V gABI, "ELF Header"), whatever their OS ABI, executable or shared.
    Flags: F opens the emulator now; P hands it the program's own argv[0]; C (with O) gives set-uid programs their
    owner.
    """
    machine = _MACHINES[architecture]
    order = "<" if machine.little else ">"
    start = b"\x7fELF" + bytes((2 if machine.bits == 64 else 1, 1 if machine.little else 2, 1, 0)) + bytes(8)
    magic = start + struct.pack(f"{order}HH", 2, machine.number)
    # Of the type, ET_EXEC (2) and ET_DYN (3) are alike.
    mask = b"\xff" * 7 + b"\0" + b"\xff" * 8 + struct.pack(f"{order}HH", 0xFFFE, 0xFFFF)
    escaped = ("".join(f"\\x{byte:02x}" for byte in part) for part in (magic, mask))
    return f":qemu-{machine.qemu}:M::{':'.join(escaped)}:{_FOLDER}/{_PROGRAM}:FPOC".encode()


def _is_static(program: Path) -> bool:
    """Whether a 64-bit little-endian ELF file names no loader: in the guest there is none."""
    try:
        with program.open("rb") as file:
            head = file.read(4096)
        offset, size, count = (
            struct.unpack_from(form, head, at)[0] for form, at in (("<Q", 32), ("<H", 54), ("<H", 56))
        )
        types = [struct.unpack_from("<I", head, offset + index * size)[0] for index in range(count)]
    except (OSError, struct.error):
        return False
    return head[:6] == b"\x7fELF\x02\x01" and _PT_INTERP not in types
