"""The superblock (Linux: Documentation/filesystems/ext4/super.rst)."""

from __future__ import annotations

from dataclasses import dataclass

from firkin.ext4._geometry import Geometry
from firkin.ext4._groups import Groups
from firkin.ext4._layout import (
    BLOCKS_PER_GROUP,
    COMPAT_DIR_INDEX,
    COMPAT_EXT_ATTR,
    COMPAT_HAS_JOURNAL,
    COMPAT_SPARSE_SUPER2,
    EXTRA_SIZE,
    FIRST_INODE,
    INCOMPAT_EXTENTS,
    INCOMPAT_FILETYPE,
    INCOMPAT_FLEX_BG,
    INODE_SIZE,
    JOURNAL_INODE,
    RO_COMPAT_DIR_NLINK,
    RO_COMPAT_EXTRA_ISIZE,
    RO_COMPAT_GDT_CSUM,
    RO_COMPAT_HUGE_FILE,
    RO_COMPAT_LARGE_FILE,
    RO_COMPAT_SPARSE_SUPER,
    SUPER,
    SUPER_MAGIC,
    SUPER_OFFSET,
)

__all__ = ["Identity", "encode_super"]

_COMPAT = COMPAT_EXT_ATTR | COMPAT_DIR_INDEX | COMPAT_SPARSE_SUPER2
_INCOMPAT = INCOMPAT_FILETYPE | INCOMPAT_EXTENTS | INCOMPAT_FLEX_BG
_RO_COMPAT = (
    RO_COMPAT_SPARSE_SUPER
    | RO_COMPAT_LARGE_FILE
    | RO_COMPAT_HUGE_FILE
    | RO_COMPAT_GDT_CSUM
    | RO_COMPAT_DIR_NLINK
    | RO_COMPAT_EXTRA_ISIZE
)
_CLEAN = 1
_CONTINUE_ON_ERRORS = 1
_NEVER = 0xFFFF  # no check after a number of mounts
_USER_XATTR_AND_ACL = 0xC
_UNSIGNED_HASH = 2
_HALF_MD4 = 1
_JOURNAL_BACKED_UP = 1
_GROUPS_PER_FLEX = 4  # 2 to the power of
_BACKUP_GROUPS = 0x24C


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells an image from others: UUID and hash seed (16 bytes each), label (up to 16), and its time of making."""

    uuid: bytes
    seed: bytes
    label: bytes
    timestamp: int


def encode_super(
    geometry: Geometry, groups: Groups, identity: Identity, journal_map: bytes, *, group: int = 0
) -> bytes:
    """The 1024 bytes of the superblock or, for another `group`, of its copy there.

    `journal_map` is the copy of the journal inode's block map and size that s_jnl_blocks holds, or empty.
    """
    time = min(max(identity.timestamp, 0), 0xFFFFFFFF)
    fixed = SUPER.pack(
        groups.inodes_per_group * geometry.groups,
        geometry.blocks,
        0,
        groups.free_blocks,
        groups.free_inodes,
        0,
        2,
        2,
        BLOCKS_PER_GROUP,
        BLOCKS_PER_GROUP,
        groups.inodes_per_group,
        0,
        time,
        0,
        _NEVER,
        SUPER_MAGIC,
        _CLEAN,
        _CONTINUE_ON_ERRORS,
        0,
        time,
        0,
        0,
        1,
        0,
        0,
        FIRST_INODE,
        INODE_SIZE,
        group,
        _COMPAT | (COMPAT_HAS_JOURNAL if journal_map else 0),
        _INCOMPAT,
        _RO_COMPAT,
        identity.uuid,
        identity.label,
        b"",
        0,
        0,
        0,
        0,
        b"",
        JOURNAL_INODE if journal_map else 0,
        0,
        0,
        identity.seed,
        _HALF_MD4,
        _JOURNAL_BACKED_UP if journal_map else 0,
        0,
        _USER_XATTR_AND_ACL,
        0,
        time,
        journal_map,
        0,
        0,
        0,
        EXTRA_SIZE,
        EXTRA_SIZE,
        _UNSIGNED_HASH,
        0,
        0,
        0,
        0,
        _GROUPS_PER_FLEX,
        0,
        0,
        0,
    )
    backups = geometry.backup_group.to_bytes(4, "little")
    return fixed.ljust(_BACKUP_GROUPS, b"\0") + backups.ljust(SUPER_OFFSET - _BACKUP_GROUPS, b"\0")
