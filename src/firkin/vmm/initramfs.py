"""Writing a newc cpio archive: what the kernel unpacks as its first root file system."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from firkin.frozen import dataclass

__all__ = ["Entry", "directory", "file", "newc"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive: `path` without a leading slash, `mode` with its type bits, `rdev` of a device node."""

    path: str
    mode: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


def directory(path: str, mode: int = 0o755) -> Entry:
    """A directory; `mode` is its permissions."""
    return Entry(path, stat.S_IFDIR | mode)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file; `mode` is its permissions."""
    return Entry(path, stat.S_IFREG | mode, data)


def newc(entries: Iterable[Entry]) -> bytes:
    """The archive, padded to 512 bytes. Everything belongs to root, with no times: equal entries give equal bytes.

    Linux, Documentation/driver-api/early-userspace/buffer-format.rst: "070701", then 13 fields of 8 hexadecimal digits.
    """
    out = bytearray()
    for number, entry in enumerate((*entries, Entry("TRAILER!!!", 0)), 1):
        name = entry.path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.rdev, len(name), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4)
        out += entry.data
        out += b"\0" * (-len(out) % 4)
    return bytes(out + b"\0" * (-len(out) % 512))
