"""Extent trees: encoding (Linux: fs/ext4/ext4_extents.h)."""

from __future__ import annotations

import struct
from typing import Protocol

from firkin.ext4._layout import BLOCK_SIZE, EXTENT_MAGIC, MAX_EXTENT

__all__ = ["NO_EXTENTS", "Run", "encode", "encode_one"]

Run = tuple[int, int, int]
"""First logical block, first physical block, number of blocks."""

_HEADER = struct.Struct("<HHHHI")
_ENTRY = struct.Struct("<IHHI")
_ONE = struct.Struct("<HHHHIIHHI36x")
_PER_BLOCK = (BLOCK_SIZE - _HEADER.size) // _ENTRY.size
_IN_INODE = 4

NO_EXTENTS = _HEADER.pack(EXTENT_MAGIC, 0, _IN_INODE, 0, 0).ljust(60, b"\0")


class _Appender(Protocol):
    def append(self, data: bytes, /) -> int: ...


def encode_one(physical: int, count: int) -> bytes:
    """The 60 bytes of an inode whose `count` (1-32,768) blocks are contiguous from logical block 0."""
    return _ONE.pack(EXTENT_MAGIC, 1, _IN_INODE, 0, 0, 0, count, 0, physical)


def encode(runs: list[Run], blocks: _Appender) -> tuple[bytes, list[int]]:
    """The 60 bytes of an inode that map `runs`, and the tree blocks appended to `blocks` for it.

    The tree is as narrow as it can be: every block but the last of a level is full.
    """
    entries = [
        _ENTRY.pack(logical + done, min(count - done, MAX_EXTENT), 0, physical + done)
        for logical, physical, count in runs
        for done in range(0, count, MAX_EXTENT)
    ]
    depth, used = 0, list[int]()
    while len(entries) > _IN_INODE:
        parents = []
        for at in range(0, len(entries), _PER_BLOCK):
            part = entries[at : at + _PER_BLOCK]
            block = blocks.append(_node(part, depth, _PER_BLOCK).ljust(BLOCK_SIZE, b"\0"))
            used.append(block)
            parents.append(part[0][:4] + struct.pack("<IHH", block, 0, 0))
        entries = parents
        depth += 1
    return _node(entries, depth, _IN_INODE).ljust(60, b"\0"), used


def _node(entries: list[bytes], depth: int, room: int) -> bytes:
    return _HEADER.pack(EXTENT_MAGIC, len(entries), room, depth, 0) + b"".join(entries)
