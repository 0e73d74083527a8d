"""Numbers and structures of ext4 on disk (Linux: Documentation/filesystems/ext4, fs/ext4/ext4.h)."""

from __future__ import annotations

import struct

__all__ = [
    "BLOCKS_PER_GROUP",
    "BLOCK_SHIFT",
    "BLOCK_SIZE",
    "COMPAT_DIR_INDEX",
    "COMPAT_EXT_ATTR",
    "COMPAT_HAS_JOURNAL",
    "COMPAT_SPARSE_SUPER2",
    "EXTENTS_FLAG",
    "EXTENT_MAGIC",
    "EXTRA_SIZE",
    "FIRST_INODE",
    "GROUP_BLOCK_UNINIT",
    "GROUP_INODE_UNINIT",
    "GROUP_INODE_ZEROED",
    "INCOMPAT_64BIT",
    "INCOMPAT_CSUM_SEED",
    "INCOMPAT_EXTENTS",
    "INCOMPAT_FILETYPE",
    "INCOMPAT_FLEX_BG",
    "INCOMPAT_LARGEDIR",
    "INCOMPAT_META_BG",
    "INCOMPAT_RECOVER",
    "INDEX_FLAG",
    "INODE",
    "INODE_SIZE",
    "JOURNAL_INODE",
    "MAX_EXTENT",
    "MAX_FILE_BLOCKS",
    "MAX_LINKS",
    "ROOT_INODE",
    "RO_COMPAT_DIR_NLINK",
    "RO_COMPAT_EXTRA_ISIZE",
    "RO_COMPAT_GDT_CSUM",
    "RO_COMPAT_HUGE_FILE",
    "RO_COMPAT_LARGE_FILE",
    "RO_COMPAT_SPARSE_SUPER",
    "SUPER",
    "SUPER_MAGIC",
    "SUPER_OFFSET",
    "XATTR_MAGIC",
    "blocks_of",
]

BLOCK_SHIFT = 12
BLOCK_SIZE = 1 << BLOCK_SHIFT
BLOCKS_PER_GROUP = 8 * BLOCK_SIZE  # one block of bitmap
INODE_SIZE = 256
EXTRA_SIZE = 32  # i_extra_isize: nanoseconds, creation time, project
ROOT_INODE = 2
JOURNAL_INODE = 8
FIRST_INODE = 11
MAX_LINKS = 65000
MAX_EXTENT = 32768  # blocks in one initialised extent
MAX_FILE_BLOCKS = (1 << 32) - 1

SUPER_OFFSET = 1024
SUPER_MAGIC = 0xEF53
EXTENT_MAGIC = 0xF30A
XATTR_MAGIC = 0xEA020000

EXTENTS_FLAG = 0x80000
INDEX_FLAG = 0x1000

COMPAT_HAS_JOURNAL, COMPAT_EXT_ATTR, COMPAT_DIR_INDEX, COMPAT_SPARSE_SUPER2 = 0x4, 0x8, 0x20, 0x200
INCOMPAT_FILETYPE, INCOMPAT_RECOVER, INCOMPAT_META_BG, INCOMPAT_EXTENTS = 0x2, 0x4, 0x10, 0x40
INCOMPAT_64BIT, INCOMPAT_FLEX_BG, INCOMPAT_CSUM_SEED, INCOMPAT_LARGEDIR = 0x80, 0x200, 0x2000, 0x4000
RO_COMPAT_SPARSE_SUPER, RO_COMPAT_LARGE_FILE, RO_COMPAT_HUGE_FILE = 0x1, 0x2, 0x8
RO_COMPAT_GDT_CSUM, RO_COMPAT_DIR_NLINK, RO_COMPAT_EXTRA_ISIZE = 0x10, 0x20, 0x40

GROUP_INODE_UNINIT, GROUP_BLOCK_UNINIT, GROUP_INODE_ZEROED = 1, 2, 4

INODE = struct.Struct("<HHIIIIIHHIII60sIIIIHHHHHHHHIIIIIII96s")
"""An inode: mode, uid, size, atime, ctime, mtime, dtime, gid, links, sectors, flags, version, block map (60 bytes),
generation, xattr block, size high, fragment, sectors high, xattr block high, uid high, gid high, checksum, reserved;
then extra size, checksum high, ctime, mtime and atime extra, creation time and its extra, version high, project, and 96
bytes for xattrs."""

SUPER = struct.Struct("<IIIIIIIIIIIIIHHHHHHIIIIHHIHHIII16s16s64sIBBH16sIII16sBBHIII68sIIIHHIHHQIBBHQ")
"""The superblock up to s_kbytes_written (offset 0x180), field by field."""


def blocks_of(size: int) -> int:
    """How many blocks hold `size` bytes."""
    return (size + BLOCK_SIZE - 1) >> BLOCK_SHIFT
