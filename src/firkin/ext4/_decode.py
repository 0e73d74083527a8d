"""Decoding what an image's blocks hold: directory entries and extended attributes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from firkin.ext4._image import Image, Inode
from firkin.ext4._layout import XATTR_MAGIC
from firkin.ext4._xattr import XATTR_PREFIXES, acl_from_disk

__all__ = ["directory_entries", "xattrs_of"]

_MAX_DIRECTORY = 1 << 30
_DIRENT = struct.Struct("<IHBB")
_XATTR = struct.Struct("<BBHIII")
_XATTR_BLOCK_HEADER = 32
_ACLS = (2, 3)


def directory_entries(image: Image, inode: Inode) -> Iterator[tuple[bytes, int]]:
    """The names of a directory and their inodes, without `.` and `..`; a hash tree's index looks like empty blocks."""
    if inode.size > _MAX_DIRECTORY:
        raise image.damaged(f"the directory of inode {inode.number} is too large")
    size = image.block_size
    end = inode.size // size
    for logical, physical, count in image.extents(inode):
        for index in range(min(count, end - logical)):
            block = image.block(physical + index)
            at = 0
            while at < size:
                number, length, name_length, _ = _DIRENT.unpack_from(block, at)
                if length < 8 or length & 3 or at + length > size or name_length + 8 > length:
                    raise image.damaged(f"the directory of inode {inode.number} is malformed")
                if number:
                    name = block[at + 8 : at + 8 + name_length]
                    if not name or b"/" in name or b"\0" in name:
                        raise image.damaged(f"the directory of inode {inode.number} has an impossible name")
                    if name not in (b".", b".."):
                        yield name, number
                at += length


def xattrs_of(image: Image, inode: Inode) -> dict[bytes, bytes]:
    """The extended attributes of an inode by full name, access control lists in the form of system calls."""
    found: dict[bytes, bytes] = {}
    inline = inode.inline_xattrs
    if inline[:4] == struct.pack("<I", XATTR_MAGIC):
        _decode_xattrs(image, inline[4:], 0, found)
    if inode.xattr_block:
        block = image.block(inode.xattr_block)
        if block[:4] != struct.pack("<I", XATTR_MAGIC):
            raise image.damaged(f"the extended attributes of inode {inode.number} are malformed")
        _decode_xattrs(image, block, _XATTR_BLOCK_HEADER, found)
    return found


def _decode_xattrs(image: Image, data: bytes, at: int, found: dict[bytes, bytes]) -> None:
    while data[at : at + 4] != b"\0\0\0\0":
        if at + _XATTR.size > len(data):
            raise image.damaged("an extended attribute is malformed")
        length, index, offset, elsewhere, size, _ = _XATTR.unpack_from(data, at)
        name = data[at + _XATTR.size : at + _XATTR.size + length]
        if elsewhere or index not in XATTR_PREFIXES or len(name) < length or offset + size > len(data):
            raise image.damaged("an extended attribute is malformed")
        value = data[offset : offset + size]
        found[XATTR_PREFIXES[index] + name] = acl_from_disk(value) if index in _ACLS else value
        at += (_XATTR.size + length + 3) & ~3
