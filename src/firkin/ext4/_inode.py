"""Inode rows: 256 bytes each, as they lie in the inode tables."""

from __future__ import annotations

import stat
from typing import NamedTuple

from firkin.errors import ImageError
from firkin.ext4._layout import BLOCK_SIZE, EXTENTS_FLAG, EXTRA_SIZE, INODE
from firkin.ext4._member import Time

__all__ = ["NO_XATTR_PLACE", "Attributes", "device_map", "directory_attributes", "encode_time", "pack_inode"]

_SECTORS_PER_BLOCK = BLOCK_SIZE // 512
_MIN_SECONDS, _MAX_SECONDS = -(1 << 31), (1 << 34) - (1 << 31) - 1
_MAX_ID = 0xFFFFFFFE

NO_XATTR_PLACE = (bytes(96), 0)


class Attributes(NamedTuple):
    """What an inode says about its file: mode with type, owner, encoded times, and where its xattrs are."""

    mode: int
    uid: int
    gid: int
    mtime: tuple[int, int]
    atime: tuple[int, int]
    crtime: tuple[int, int]
    xattrs: tuple[bytes, int] = NO_XATTR_PLACE


def directory_attributes(permissions: int, timestamp: int) -> Attributes:
    """Those of a directory that no layer describes, owned by root."""
    time = encode_time((timestamp, 0))
    return Attributes(stat.S_IFDIR | permissions, 0, 0, time, time, time)


def encode_time(time: Time) -> tuple[int, int]:
    """The low 32 bits, and the extra word: two bits of epoch, 30 of nanoseconds; clamped as Linux does."""
    seconds = min(max(time[0], _MIN_SECONDS), _MAX_SECONDS)
    return seconds & 0xFFFFFFFF, (((seconds + 0x80000000) >> 32) & 3) | time[1] << 2


def pack_inode(attributes: Attributes, size: int, block_map: bytes, blocks: int, links: int = 1) -> bytes:
    """One row. `blocks` counts the blocks held, those of the extent tree included, that of the xattrs not."""
    mode, uid, gid, mtime, atime, crtime, (inline, xattr_block) = attributes
    if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID):
        raise ImageError(f"a file is owned by {uid}:{gid}, which Linux can't represent")
    sectors = (blocks + 1 if xattr_block else blocks) * _SECTORS_PER_BLOCK
    kind = stat.S_IFMT(mode)
    flags = EXTENTS_FLAG if kind == stat.S_IFREG or kind == stat.S_IFDIR or blocks else 0
    return INODE.pack(
        mode,
        uid & 0xFFFF,
        size & 0xFFFFFFFF,
        atime[0],
        mtime[0],
        mtime[0],
        0,
        gid & 0xFFFF,
        links,
        sectors & 0xFFFFFFFF,
        flags,
        0,
        block_map,
        0,
        xattr_block,
        size >> 32,
        0,
        sectors >> 32,
        0,
        uid >> 16,
        gid >> 16,
        0,
        0,
        EXTRA_SIZE,
        0,
        mtime[1],
        mtime[1],
        atime[1],
        crtime[0],
        crtime[1],
        0,
        0,
        inline,
    )


def device_map(major: int, minor: int) -> bytes:
    """The block map of a device: the old 16-bit number where it fits, else the new one second (fs/ext4/inode.c)."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ImageError(f"the device number {major}:{minor} is out of Linux's range")
    if major < 256 and minor < 256:
        return (major << 8 | minor).to_bytes(4, "little").ljust(60, b"\0")
    new = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
    return bytes(4) + new.to_bytes(4, "little").ljust(56, b"\0")
