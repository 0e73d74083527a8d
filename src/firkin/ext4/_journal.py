"""A clean journal (Linux: Documentation/filesystems/ext4/journal.rst): only its superblock is ever written."""

from __future__ import annotations

import struct

from firkin.ext4._layout import BLOCK_SIZE

__all__ = ["journal_blocks", "journal_superblock"]

_MAGIC = 0xC03B3998
_SUPERBLOCK_V2 = 4
_HEADER = struct.Struct(">IIIIIIIIIIII16sI")
_SIZES = ((32_768, 1024), (262_144, 4096), (524_288, 8192))  # mke2fs's own steps, up to 64 MiB
_LARGEST = 16_384
_SMALLEST_IMAGE = 2048


def journal_blocks(total: int) -> int:
    """How many blocks of an image of `total` blocks its journal takes; 0 where it is too small to have one."""
    if total < _SMALLEST_IMAGE:
        return 0
    return next((size for bound, size in _SIZES if total < bound), _LARGEST)


def journal_superblock(count: int, uuid: bytes) -> bytes:
    """The first block of an empty journal of `count` blocks."""
    fields = (_MAGIC, _SUPERBLOCK_V2, 0, BLOCK_SIZE, count, 1, 1, 0, 0, 0, 0, 0)
    return _HEADER.pack(*fields, uuid, 1).ljust(BLOCK_SIZE, b"\0")
