"""Compiled seccomp filters, kept by the hash of what they were made of: starting a container compiles nothing."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from firkin import faults
from firkin.core.lowering import SeccompProgram
from firkin.core.policy import effective_capabilities
from firkin.types import Capability, LinuxCapabilities

if TYPE_CHECKING:
    from firkin.core.options import ContainerOptions
    from firkin.core.seccomp import Seccomp

__all__ = ["container_program", "default_profile", "program_for"]

_log = logging.getLogger("firkin.core.seccomp")
_PUBLISH = faults.declare("seccomp.publish", "a compiled filter is written but has no name yet")

# Of the file: magic with a version (raise it when the compiler changes), flags, CRC-32 of the program.
_HEADER = struct.Struct("<8sII")
_MAGIC = b"FKBPF\0\0\1"
_LARGEST_FILE = _HEADER.size + 4096 * 8
_KERNEL = (6, 1)


def container_program(
    options: ContainerOptions, *, cache: Path, architecture: str = "amd64", kernel: tuple[int, int] = _KERNEL
) -> SeccompProgram | None:
    """The filter of a container's first process, `None` for none (unconfined, or privileged without a profile of its
    own).
    """
    if options.privileged and options.seccomp == "default":
        return None
    held = effective_capabilities(
        options.capabilities, options.cap_add, options.cap_drop, privileged=options.privileged
    )
    return program_for(options.seccomp, held, cache=cache, architecture=architecture, kernel=kernel)


def program_for(
    choice: Seccomp | Literal["default", "unconfined"],
    capabilities: LinuxCapabilities,
    *,
    cache: Path,
    architecture: str = "amd64",
    kernel: tuple[int, int] = _KERNEL,
) -> SeccompProgram | None:
    """The filter of a profile for a process with `capabilities` on a guest's `architecture` (OCI's name) and `kernel`
    version.

    `cache` is a folder (`StateDirs.cache / "seccomp"`), made on demand; one that can't be written costs a compilation
    each time, nothing else. Raises `InvalidInputError` for a profile that makes no filter, `FirkinError` without
    libseccomp.
    """
    if choice == "unconfined":
        return None
    content = _default_text() if choice == "default" else repr(choice).encode()
    held = frozenset(capabilities.bounding)
    path = cache / f"{_key(content, held, architecture, kernel)}.bpf"
    program = _read(path)
    if program is None:
        from firkin.core.seccomp_compile import compile_profile

        profile = default_profile() if choice == "default" else choice
        program = compile_profile(profile, architecture=architecture, capabilities=held, kernel=kernel)
        _write(path, program)
    return program


def default_profile() -> Seccomp:
    """Firkin's own profile, `seccomp_default.json`."""
    from firkin.core.seccomp import Seccomp

    return Seccomp.from_json(_default_text())


def _default_text() -> bytes:
    return Path(__file__).with_name("seccomp_default.json").read_bytes()


def _key(content: bytes, held: frozenset[Capability], architecture: str, kernel: tuple[int, int]) -> str:
    made_of = hashlib.sha256(_MAGIC + content)
    made_of.update(f"\0{architecture}\0{kernel}\0{' '.join(sorted(held))}".encode())
    return made_of.hexdigest()


def _read(path: Path) -> SeccompProgram | None:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError:
        return None
    if len(content) < _HEADER.size or len(content) > _LARGEST_FILE:
        return None
    magic, flags, checksum = _HEADER.unpack_from(content)
    bpf = content[_HEADER.size :]
    whole = magic == _MAGIC and bpf and len(bpf) % 8 == 0 and zlib.crc32(bpf) == checksum
    return SeccompProgram(bpf, flags) if whole else None


def _write(path: Path, program: SeccompProgram) -> None:
    """Publish at once or not at all: the file has no name before it is whole, so that a crash leaves nothing behind."""
    content = _HEADER.pack(_MAGIC, program.flags, zlib.crc32(program.bpf)) + program.bpf
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.ExitStack() as opened:
            folder = os.open(path.parent, os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, folder)
            fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
            opened.callback(os.close, fd)
            os.write(fd, content)
            faults.point(_PUBLISH)
            # A file that is there and was not read as whole is damaged, or another process was faster.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=folder)
            # Given a dir_fd, Python calls linkat(2) with AT_SYMLINK_FOLLOW, which an unnamed file needs.
            os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    except FileExistsError:
        _log.debug("another process has compiled %s", path.name)
    except OSError as error:
        _log.debug("the compiled seccomp filter is not kept: %s", error)
