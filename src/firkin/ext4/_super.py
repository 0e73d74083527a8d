"""The superblock (Linux: Documentation/filesystems/ext4/super.rst)."""

from __future__ import annotations

from dataclasses import dataclass

from firkin.ext4._geometry import Geometry
from firkin.ext4._groups import Groups
from firkin.ext4._layout import (
    BLOCK_SHIFT,
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
    SUPER_MAGIC,
    SUPER_OFFSET,
    pack_super,
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
    numbers = {
        "inodes_count": groups.inodes_per_group * geometry.groups,
        "blocks_count": geometry.blocks,
        "free_blocks_count": groups.free_blocks,
        "free_inodes_count": groups.free_inodes,
        "log_block_size": BLOCK_SHIFT - 10,
        "log_cluster_size": BLOCK_SHIFT - 10,
        "blocks_per_group": BLOCKS_PER_GROUP,
        "clusters_per_group": BLOCKS_PER_GROUP,
        "inodes_per_group": groups.inodes_per_group,
        "wtime": time,
        "max_mnt_count": _NEVER,
        "magic": SUPER_MAGIC,
        "state": _CLEAN,
        "errors": _CONTINUE_ON_ERRORS,
        "lastcheck": time,
        "rev_level": 1,
        "first_ino": FIRST_INODE,
        "inode_size": INODE_SIZE,
        "block_group_nr": group,
        "feature_compat": _COMPAT | (COMPAT_HAS_JOURNAL if journal_map else 0),
        "feature_incompat": _INCOMPAT,
        "feature_ro_compat": _RO_COMPAT,
        "journal_inum": JOURNAL_INODE if journal_map else 0,
        "def_hash_version": _HALF_MD4,
        "jnl_backup_type": _JOURNAL_BACKED_UP if journal_map else 0,
        "default_mount_opts": _USER_XATTR_AND_ACL,
        "mkfs_time": time,
        "min_extra_isize": EXTRA_SIZE,
        "want_extra_isize": EXTRA_SIZE,
        "flags": _UNSIGNED_HASH,
        "log_groups_per_flex": _GROUPS_PER_FLEX,
    }
    texts = {
        "uuid": identity.uuid,
        "volume_name": identity.label,
        "hash_seed": identity.seed,
        "jnl_blocks": journal_map,
    }
    fixed = pack_super(numbers, texts)
    backups = geometry.backup_group.to_bytes(4, "little")
    return fixed.ljust(_BACKUP_GROUPS, b"\0") + backups.ljust(SUPER_OFFSET - _BACKUP_GROUPS, b"\0")
