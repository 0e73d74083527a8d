"""Block groups: their bitmaps and descriptors (Linux: Documentation/filesystems/ext4/group_descr.rst, bitmaps.rst).

All metadata of the groups lies in one stretch behind the content (flex_bg allows that), so that a group behind it is
wholly free: its bitmaps and inode table are never written, its flags say so, and it costs nothing on the host.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass

from firkin.errors import ImageError
from firkin.ext4._blocks import BlockWriter
from firkin.ext4._geometry import Geometry
from firkin.ext4._layout import (
    BLOCK_SIZE,
    BLOCKS_PER_GROUP,
    GROUP_BLOCK_UNINIT,
    GROUP_INODE_UNINIT,
    GROUP_INODE_ZEROED,
    INODE_SIZE,
)
from firkin.ext4._tree import Tree

__all__ = ["Groups", "write_groups"]

_DESCRIPTOR = struct.Struct("<IIIHHHHIHHH")


@dataclass(frozen=True, slots=True)
class Groups:
    """What the superblock has to know of the groups: their descriptors in a row, and what is free in all."""

    descriptors: bytes
    inodes_per_group: int
    free_blocks: int
    free_inodes: int


def write_groups(tree: Tree, blocks: BlockWriter, geometry: Geometry, uuid: bytes) -> Groups:
    """Place and write bitmaps and inode tables, the last blocks of the image to be handed out."""
    count = geometry.groups
    inodes = tree.inode_count
    per_group = geometry.inodes_per_group(inodes)
    if inodes > per_group * count:
        raise ImageError(
            f"{inodes} files do not fit into an image of {geometry.blocks * BLOCK_SIZE} bytes",
            hint="ask for a larger size",
        )
    table_blocks = per_group * INODE_SIZE // BLOCK_SIZE
    block_bitmaps = blocks.reserve(count)
    inode_bitmaps = blocks.reserve(count)
    tables = blocks.reserve(count * table_blocks)
    blocks.write_at(tables, tree.table)
    block_bits = _block_bits(blocks.next, tree.freed)
    inode_bits = _inode_bits(inodes, tree.unused)
    directories = Counter((number - 1) // per_group for number in tree.directories)
    descriptors: list[bytes] = []
    free_blocks = free_inodes = 0
    start_checksum = _crc16(0xFFFF, uuid)
    for group in range(count):
        flags = GROUP_INODE_ZEROED
        bitmap = _block_bitmap(block_bits, group, geometry)
        if bitmap is None:
            flags |= GROUP_BLOCK_UNINIT
            unused_blocks = BLOCKS_PER_GROUP
        else:
            unused_blocks = BLOCKS_PER_GROUP - int.from_bytes(bitmap, "little").bit_count()
            blocks.write_at(block_bitmaps + group, bitmap)
        bits = inode_bits[group * per_group // 8 : (group + 1) * per_group // 8]
        unused_inodes = per_group - int.from_bytes(bits, "little").bit_count()
        untouched = per_group - min(max(inodes - group * per_group, 0), per_group)
        if untouched == per_group:
            flags |= GROUP_INODE_UNINIT
        else:
            filled = bits.ljust(per_group // 8, b"\0").ljust(BLOCK_SIZE, b"\xff")
            blocks.write_at(inode_bitmaps + group, filled)
        free_blocks += unused_blocks
        free_inodes += unused_inodes
        descriptor = _DESCRIPTOR.pack(
            block_bitmaps + group,
            inode_bitmaps + group,
            tables + group * table_blocks,
            unused_blocks,
            unused_inodes,
            directories[group],
            flags,
            0,
            0,
            0,
            untouched,
        )
        checksum = _crc16(start_checksum, group.to_bytes(4, "little") + descriptor)
        descriptors.append(descriptor + checksum.to_bytes(2, "little"))
    return Groups(b"".join(descriptors), per_group, free_blocks, free_inodes)


def _block_bits(end: int, freed: list[tuple[int, int]]) -> bytearray:
    """One bit a block, up to the group that holds `end`: all are in use but those freed."""
    bits = bytearray(-(-end // BLOCKS_PER_GROUP) * BLOCK_SIZE)
    _fill(bits, 0, end, value=True)
    for start, count in freed:
        _fill(bits, start, count, value=False)
    return bits


def _inode_bits(inodes: int, unused: list[int]) -> bytearray:
    bits = bytearray(-(-inodes // 8))
    _fill(bits, 0, inodes, value=True)
    for number in unused:
        _fill(bits, number - 1, 1, value=False)
    return bits


def _block_bitmap(bits: bytearray, group: int, geometry: Geometry) -> bytearray | None:
    """The bitmap of a group, or None where all of it is free (the last group always has one, as mke2fs makes it)."""
    bitmap = bits[group * BLOCK_SIZE : (group + 1) * BLOCK_SIZE]
    if group < geometry.groups - 1:
        return bitmap or None
    bitmap = bitmap or bytearray(BLOCK_SIZE)
    if group and group == geometry.backup_group:
        _fill(bitmap, 0, geometry.first_content, value=True)
    length = geometry.length(group)
    _fill(bitmap, length, BLOCKS_PER_GROUP - length, value=True)
    return bitmap


def _fill(bits: bytearray, start: int, count: int, *, value: bool) -> None:
    """Set or clear `count` bits from bit `start` on, the lowest bit of a byte first."""
    end = start + count
    first, last = (start + 7) >> 3, end >> 3
    if first > last:  # within one byte
        _mask(bits, last, (1 << (end & 7)) - (1 << (start & 7)), value=value)
        return
    if start & 7:
        _mask(bits, start >> 3, 0x100 - (1 << (start & 7)), value=value)
    bits[first:last] = (b"\xff" if value else b"\0") * (last - first)
    if end & 7:
        _mask(bits, last, (1 << (end & 7)) - 1, value=value)


def _mask(bits: bytearray, at: int, mask: int, *, value: bool) -> None:
    bits[at] = bits[at] | mask if value else bits[at] & ~mask


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def _crc16(checksum: int, data: bytes) -> int:
    """CRC-16 as in Linux's lib/crc16.c."""
    for byte in data:
        checksum = checksum >> 8 ^ _CRC[(checksum ^ byte) & 0xFF]
    return checksum
