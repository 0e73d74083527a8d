"""Finding a kernel, and getting the uncompressed ELF out of a bzImage."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from firkin.errors import BootError, InvalidInputError
from firkin.frozen import dataclass
from firkin.types.state import StateDirs

__all__ = ["KernelImage", "extract_vmlinux", "find_kernel"]

_MAX_VMLINUX = 512 << 20
_SYSTEM_FOLDERS = ("/usr/local/share/firkin/kernel", "/usr/share/firkin/kernel")


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel to boot: `path` is a bzImage, a vmlinux or an arm64 Image; `modules` its `lib/modules/<release>` folder.

    Without `modules` everything the guest needs must be built in.
    """

    path: Path
    modules: Path | None = None

    @classmethod
    def from_file(cls, path: Path | str, modules: Path | str | None = None) -> KernelImage:
        """The kernel in this file; its modules are looked for beside it (`../lib/modules/<release>`) unless given.

        Raises `InvalidInputError` where there is no such file.
        """
        path = Path(path).absolute()
        if not path.is_file():
            raise InvalidInputError(f"no kernel at {path}", value=path, hint="name a bzImage or vmlinux file")
        if modules is not None:
            return cls(path, Path(modules).absolute())
        return cls(path, _modules_beside(path))


def find_kernel(dirs: StateDirs, environ: Mapping[str, str] = os.environ) -> KernelImage:
    """`FIRKIN_KERNEL`, else the newest Debian cloud kernel unpacked for Firkin, else one installed on this host.

    An unpacked kernel is a folder `<release>/` with `boot/` and `lib/modules/` below `FIRKIN_KERNEL_DIR`, the cache's
    `assets/kernel/` or the system's. Raises `BootError` (not transient) where there is none.
    """
    if named := environ.get("FIRKIN_KERNEL"):
        return KernelImage.from_file(named, environ.get("FIRKIN_KERNEL_MODULES"))
    folders = [Path(folder) for folder in (environ.get("FIRKIN_KERNEL_DIR"), *_SYSTEM_FOLDERS) if folder]
    folders.insert(1 if environ.get("FIRKIN_KERNEL_DIR") else 0, dirs.cache / "assets" / "kernel")
    for folder in folders:
        # What begins with a dot is being unpacked.
        releases = [name for name in _listdir(folder) if not name.startswith(".")]
        for release in sorted(releases, key=_release_order, reverse=True):
            if found := _unpacked(folder / release):
                return found
    if found := _unpacked(Path("/")):
        return found
    raise BootError("there is no kernel to boot", hint="firkin setup fetches one")


def extract_vmlinux(data: bytes) -> bytes:
    """The ELF vmlinux inside a bzImage, or `data` itself where it is an ELF or an arm64 Image already.

    Linux, Documentation/x86/boot.rst: setup_sects at 0x1f1, payload_offset and payload_length at 0x248 and 0x24c. The
    payload's last four bytes are its uncompressed size. Raises `InvalidInputError` for anything else.
    """
    if data[:4] == b"\x7fELF" or data[0x38:0x3C] == b"ARM\x64":
        return data
    if data[:2] == b"\x1f\x8b":
        # arm64's Image.gz is the whole file.
        return _checked(_decompress(data, _MAX_VMLINUX))
    if len(data) < 0x250 or data[0x202:0x206] == b"\0\0\0\0" or data[0x1FE:0x200] != b"\x55\xaa":
        raise InvalidInputError("the kernel is neither a bzImage nor an ELF file", hint="name a Linux kernel")
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (data[0x1F1] + 1) * 512 + offset
    payload = data[start : start + length]
    if len(payload) != length or length < 8:
        raise InvalidInputError("the kernel image is cut off")
    (size,) = struct.unpack("<I", payload[-4:])
    if size > _MAX_VMLINUX:
        raise InvalidInputError(f"the kernel would be {size} bytes uncompressed")
    vmlinux = _decompress(payload, size)
    if len(vmlinux) != size:
        raise InvalidInputError(f"the kernel image is damaged: {len(vmlinux)} bytes come out of it, not {size}")
    return _checked(vmlinux)


def _decompress(payload: bytes, size: int) -> bytes:
    import lzma

    try:
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload, size + 1)
        if payload.startswith(b"\x5d\0\0"):
            return lzma.LZMADecompressor(format=lzma.FORMAT_ALONE).decompress(payload, size + 1)
        if payload.startswith(b"\x28\xb5\x2f\xfd"):
            import zstandard

            return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
        if payload.startswith(b"\x02\x21\x4c\x18"):
            return _lz4_legacy(payload[:-4], size)
        if payload.startswith(b"BZh"):
            import bz2

            return bz2.BZ2Decompressor().decompress(payload, size + 1)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(31).decompress(payload, size + 1)
    except ImportError:
        raise
    except Exception as error:
        raise InvalidInputError("the kernel image is damaged") from error
    raise InvalidInputError(
        f"the kernel is compressed in an unknown way ({payload[:4].hex()})", hint="name its vmlinux"
    )


def _lz4_legacy(payload: bytes, size: int) -> bytes:
    """The legacy LZ4 frame (lz4_Frame_format.md, "Legacy frame"): a magic, then lengths (u32) and blocks of 8 MiB."""
    import lz4.block

    out = bytearray()
    at = 4
    while at + 4 <= len(payload) and len(out) < size:
        (length,) = struct.unpack_from("<I", payload, at)
        at += 4
        out += lz4.block.decompress(payload[at : at + length], uncompressed_size=8 << 20)
        at += length
    return bytes(out)


def _checked(vmlinux: bytes) -> bytes:
    if vmlinux[:4] != b"\x7fELF" and vmlinux[0x38:0x3C] != b"ARM\x64":
        raise InvalidInputError("what the kernel image holds is not a kernel")
    return vmlinux


def _unpacked(root: Path) -> KernelImage | None:
    """The newest kernel below `root` whose modules are there too."""
    suffix = "arm64" if os.uname().machine == "aarch64" else "amd64"
    images = [name for name in _listdir(root / "boot") if name.startswith("vmlinuz-")]
    images.sort(key=lambda name: (f"cloud-{suffix}" in name, _release_order(name)), reverse=True)
    for name in images:
        path = root / "boot" / name
        modules = root / "lib/modules" / name.removeprefix("vmlinuz-")
        if modules.is_dir() and os.access(path, os.R_OK):
            return KernelImage(path, modules)
    return None


def _modules_beside(path: Path) -> Path | None:
    release = path.name.partition("-")[2]
    for root in (path.parent.parent, Path("/")):
        candidate = root / "lib/modules" / release
        if release and candidate.is_dir():
            return candidate
    return None


def _listdir(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _release_order(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts 6.1.0-9 before 6.1.0-10."""
    parts = name.replace("-", ".").split(".")
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
