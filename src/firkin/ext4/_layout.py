"""Numbers and structures of ext4 on disk (Linux: Documentation/filesystems/ext4, fs/ext4/ext4.h)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

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
    "SUPER_MAGIC",
    "SUPER_OFFSET",
    "XATTR_MAGIC",
    "blocks_of",
    "pack_super",
    "unpack_super",
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

_SUPER_FIELDS = """
    inodes_count:I blocks_count:I r_blocks_count:I free_blocks_count:I free_inodes_count:I first_data_block:I
    log_block_size:I log_cluster_size:I blocks_per_group:I clusters_per_group:I inodes_per_group:I mtime:I wtime:I
    mnt_count:H max_mnt_count:H magic:H state:H errors:H minor_rev_level:H lastcheck:I checkinterval:I creator_os:I
    rev_level:I def_resuid:H def_resgid:H first_ino:I inode_size:H block_group_nr:H feature_compat:I feature_incompat:I
    feature_ro_compat:I uuid:16s volume_name:16s last_mounted:64s algorithm_bitmap:I prealloc_blocks:B
    prealloc_dir_blocks:B reserved_gdt_blocks:H journal_uuid:16s journal_inum:I journal_dev:I last_orphan:I
    hash_seed:16s def_hash_version:B jnl_backup_type:B desc_size:H default_mount_opts:I first_meta_bg:I mkfs_time:I
    jnl_blocks:68s blocks_count_hi:I r_blocks_count_hi:I free_blocks_count_hi:I min_extra_isize:H want_extra_isize:H
    flags:I raid_stride:H mmp_interval:H mmp_block:Q raid_stripe_width:I log_groups_per_flex:B
"""
_SUPER_NAMES = [field.partition(":")[0] for field in _SUPER_FIELDS.split()]
_SUPER = struct.Struct("<" + "".join(field.partition(":")[2] for field in _SUPER_FIELDS.split()))
_SUPER_BYTES = {name for name, field in zip(_SUPER_NAMES, _SUPER_FIELDS.split(), strict=True) if field.endswith("s")}


def pack_super(numbers: Mapping[str, int], texts: Mapping[str, bytes]) -> bytes:
    """The superblock up to s_log_groups_per_flex, its fields named as in the kernel without `s_`; the others are 0."""
    values = [texts.get(name, b"") if name in _SUPER_BYTES else numbers.get(name, 0) for name in _SUPER_NAMES]
    return _SUPER.pack(*values)


def unpack_super(data: bytes) -> dict[str, int]:
    """The numbers of a superblock, by the same names."""
    return {
        name: value
        for name, value in zip(_SUPER_NAMES, _SUPER.unpack_from(data), strict=True)
        if name not in _SUPER_BYTES
    }


def blocks_of(size: int) -> int:
    """How many blocks hold `size` bytes."""
    return (size + BLOCK_SIZE - 1) >> BLOCK_SHIFT
