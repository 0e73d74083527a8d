"""Directory blocks: plain ones, and hash trees for wide directories (Linux: filesystems/ext4/directory.rst)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from firkin.ext4._hash import hash_names
from firkin.ext4._layout import BLOCK_SIZE

__all__ = ["encode_directory"]

_LINEAR_BLOCKS = 2
_ENTRY = struct.Struct("<IHBB")
_ROOT_INFO = struct.Struct("<IBBBB")
_LIMIT = struct.Struct("<HHI")
_INDEX = struct.Struct("<II")
_HALF_MD4 = 1
_ROOT_ROOM = (BLOCK_SIZE - 24 - _ROOT_INFO.size) // _INDEX.size
_NODE_ROOM = (BLOCK_SIZE - 8) // _INDEX.size
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_DIRECTORY_TYPE = 2

_Leaf = tuple[int, bytes]


def encode_directory(
    own: int, parent: int, entries: Iterable[tuple[bytes, int, int]], seed: bytes
) -> tuple[list[bytes], bool]:
    """The blocks of a directory whose `entries` are (name, inode, file type), and whether they form a hash tree.

    Up to two blocks are searched from the front; a wider directory gets a tree, in the order of its hashes.
    """
    dots = [_entry(b".", own, _DIRECTORY_TYPE), _entry(b"..", parent, _DIRECTORY_TYPE)]
    names: list[bytes] = []
    packed: list[bytes] = []
    size = sum(map(len, dots))
    for name, inode, kind in entries:
        names.append(name)
        packed.append(_entry(name, inode, kind))
        size += len(packed[-1])
    if size > _LINEAR_BLOCKS * BLOCK_SIZE:
        tree = _encode_tree(own, parent, names, packed, seed)
        if tree is not None:
            return tree, True
    return list(_fill_blocks(dots + packed)), False


def _entry(name: bytes, inode: int, kind: int) -> bytes:
    length = len(name)
    return _ENTRY.pack(inode, (11 + length) & ~3, length, kind) + name + _PADDING[length & 3]


def _fill_blocks(packed: list[bytes]) -> Iterator[bytes]:
    part: list[bytes] = []
    room = BLOCK_SIZE
    for entry in packed:
        if len(entry) > room:
            yield _close(part, room)
            part, room = [], BLOCK_SIZE
        part.append(entry)
        room -= len(entry)
    yield _close(part, room)


def _close(part: list[bytes], room: int) -> bytes:
    """Let the last entry of a block reach to the block's end."""
    last = part[-1]
    part[-1] = last[:4] + (len(last) + room).to_bytes(2, "little") + last[6:] + bytes(room)
    return b"".join(part)


def _encode_tree(own: int, parent: int, names: list[bytes], packed: list[bytes], seed: bytes) -> list[bytes] | None:
    hashes = hash_names(names, seed)
    leaves: list[_Leaf] = []
    part: list[bytes] = []
    room, first, last = BLOCK_SIZE, 0, -1
    for index in sorted(range(len(names)), key=hashes.__getitem__):
        entry, value = packed[index], hashes[index]
        if len(entry) > room:
            leaves.append((first, _close(part, room)))
            part, room = [], BLOCK_SIZE
            first = value | (value == last)  # the lowest bit: this hash began in the block before
        part.append(entry)
        room -= len(entry)
        last = value
    leaves.append((first, _close(part, room)))
    return _index(own, parent, leaves)


def _index(own: int, parent: int, leaves: list[_Leaf]) -> list[bytes] | None:
    """The root, then index nodes if one level does not do, then the leaves; None where two levels do not either."""
    count = len(leaves)
    nodes = 0 if count <= _ROOT_ROOM else -(-count // _NODE_ROOM)
    if nodes > _ROOT_ROOM:
        return None
    first_leaf = 1 + nodes
    pointers = [(leaves[i][0], first_leaf + i) for i in range(count)]
    middle: list[bytes] = []
    if nodes:
        groups = [pointers[at : at + _NODE_ROOM] for at in range(0, count, _NODE_ROOM)]
        fake = _ENTRY.pack(0, BLOCK_SIZE, 0, 0)
        middle = [(fake + _pointers(group, _NODE_ROOM)).ljust(BLOCK_SIZE, b"\0") for group in groups]
        pointers = [(group[0][0], 1 + i) for i, group in enumerate(groups)]
    dot = _entry(b".", own, _DIRECTORY_TYPE)
    dot_dot = _ENTRY.pack(parent, BLOCK_SIZE - len(dot), 2, _DIRECTORY_TYPE) + b"..\0\0"
    info = _ROOT_INFO.pack(0, _HALF_MD4, _ROOT_INFO.size, 1 if nodes else 0, 0)
    root = (dot + dot_dot + info + _pointers(pointers, _ROOT_ROOM)).ljust(BLOCK_SIZE, b"\0")
    return [root, *middle, *(block for _, block in leaves)]


def _pointers(pointers: list[tuple[int, int]], room: int) -> bytes:
    """The first pointer's hash is not stored: its place holds how many there may be and are."""
    return _LIMIT.pack(room, len(pointers), pointers[0][1]) + b"".join(
        _INDEX.pack(*pointer) for pointer in pointers[1:]
    )
