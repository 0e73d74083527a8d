"""The end of a conversion: directories, journal, groups and, last of all, the superblock that makes it an image."""

from __future__ import annotations

import hashlib
import stat

from firkin import faults
from firkin.ext4._blocks import BlockWriter
from firkin.ext4._directory import encode_directory
from firkin.ext4._extents import encode
from firkin.ext4._geometry import Geometry
from firkin.ext4._groups import Groups, write_groups
from firkin.ext4._inode import Attributes, encode_time, pack_inode
from firkin.ext4._journal import journal_blocks, journal_superblock
from firkin.ext4._layout import (
    BLOCK_SHIFT,
    BLOCK_SIZE,
    BLOCKS_PER_GROUP,
    INODE_SIZE,
    JOURNAL_INODE,
    MAX_LINKS,
    SUPER_OFFSET,
)
from firkin.ext4._super import Identity, encode_super
from firkin.ext4._tree import Tree

__all__ = ["Finisher"]

_BEFORE_SUPERBLOCK = faults.declare("ext4.finish.superblock", "an image has all its content but no superblock yet")
_DIRENT_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
_KIND_BYTES = [_DIRENT_TYPES.get(byte << 8 & 0xF000, 0) for byte in range(256)]
_MAP = slice(40, 100)  # of a row


class Finisher:
    """Writes what can only be known at the end."""

    def __init__(self, tree: Tree, blocks: BlockWriter, geometry: Geometry, label: bytes, timestamp: int) -> None:
        self._tree = tree
        self._blocks = blocks
        self._geometry = geometry
        digest = self._digest(label)
        self._identity = Identity(_version_8(digest[:16]), digest[16:], label, timestamp)
        self._timestamp = timestamp

    @property
    def uuid(self) -> bytes:
        return self._identity.uuid

    def finish(self, *, journal: bool) -> Groups:
        """Write all that is missing. The superblock comes last: before, no kernel takes the file for an image."""
        for number, names in self._tree.directories.items():
            self._write_directory(number, names)
        self._tree.xattrs.finish()
        journal_map = self._add_journal() if journal else b""
        groups = write_groups(self._tree, self._blocks, self._geometry, self._identity.uuid)
        padded = groups.descriptors.ljust((self._geometry.first_content - 1) * BLOCK_SIZE, b"\0")
        backup = self._geometry.backup_group
        if backup:
            start = backup * BLOCKS_PER_GROUP
            copy = encode_super(self._geometry, groups, self._identity, journal_map, group=backup)
            self._blocks.write_at(start, copy.ljust(BLOCK_SIZE, b"\0") + padded)
        self._blocks.write_at(1, padded)
        faults.point(_BEFORE_SUPERBLOCK)
        self._blocks.write_at_offset(0, SUPER_OFFSET, encode_super(self._geometry, groups, self._identity, journal_map))
        return groups

    def _digest(self, label: bytes) -> bytes:
        """A digest of all that tells images apart, file contents excepted: names, attributes, sizes and places."""
        digest = hashlib.sha256(b"firkin ext4 1\0" + label + self._geometry.blocks.to_bytes(8, "little"))
        digest.update(self._tree.table)
        for number, names in self._tree.directories.items():
            digest.update(number.to_bytes(8, "little"))
            digest.update(b"\0".join(names))
        return digest.digest()

    def _write_directory(self, number: int, names: dict[bytes, int]) -> None:
        tree = self._tree
        table = tree.table
        entries = [
            (name, child, _KIND_BYTES[table[child * INODE_SIZE - INODE_SIZE + 1]]) for name, child in names.items()
        ]
        subdirectories = sum(kind == _DIRENT_TYPES[stat.S_IFDIR] for _, _, kind in entries)
        encoded, hashed = encode_directory(number, tree.parents[number], entries, self._identity.seed)
        start = self._blocks.append(b"".join(encoded))
        block_map, tree_blocks = encode([(0, start, len(encoded))], self._blocks)
        links = subdirectories + 2
        tree.place_directory(
            number,
            links=links if links < MAX_LINKS else 1,  # dir_nlink: 1 stands for "too many to count"
            size=len(encoded) << BLOCK_SHIFT,
            block_map=block_map,
            blocks=len(encoded) + len(tree_blocks),
            hashed=hashed,
        )

    def _add_journal(self) -> bytes:
        count = journal_blocks(self._geometry.blocks)
        if not count:
            return b""
        start = self._blocks.reserve(count)
        self._blocks.write_at(start, journal_superblock(count, self._identity.uuid))
        time = encode_time((self._timestamp, 0))
        block_map, _ = encode([(0, start, count)], self._blocks)
        size = count << BLOCK_SHIFT
        row = pack_inode(Attributes(stat.S_IFREG | 0o600, 0, 0, time, time, time), size, block_map, count)
        self._tree.set_row(JOURNAL_INODE, row)
        return row[_MAP] + (size >> 32).to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def _version_8(digest: bytes) -> bytes:
    """Mark 16 bytes as a UUID of version 8 (RFC 9562, section 5.8: custom)."""
    return digest[:6] + bytes([digest[6] & 0x0F | 0x80, digest[7], digest[8] & 0x3F | 0x80]) + digest[9:]
