"""How an image is divided into block groups."""

from __future__ import annotations

from dataclasses import dataclass

from firkin.errors import InvalidInputError
from firkin.ext4._layout import BLOCK_SHIFT, BLOCK_SIZE, BLOCKS_PER_GROUP, INODE_SIZE

__all__ = ["DESCRIPTOR_SIZE", "Geometry"]

DESCRIPTOR_SIZE = 32
_INODES_PER_BLOCK = BLOCK_SIZE // INODE_SIZE
_DEFAULT_INODES = 8192  # a group; one for each 16 KiB, as mke2fs gives
_MIN_BLOCKS = 64
_MAX_BLOCKS = (1 << 32) - 1  # without the 64bit feature
_MIN_LAST_GROUP = 2048  # holds a backup of the most descriptors there can be, 1024 blocks


@dataclass(frozen=True, slots=True)
class Geometry:
    """An image of `blocks` blocks.

    With `backup`, the last of several groups starts with a copy of the superblock and the descriptors.
    """

    blocks: int
    backup: bool

    @classmethod
    def of_size(cls, size: int, *, backup: bool) -> Geometry:
        """The geometry for `size` bytes, 256 KiB to just under 16 TiB; too short a last group is left out."""
        blocks = size >> BLOCK_SHIFT
        if not _MIN_BLOCKS <= blocks <= _MAX_BLOCKS:
            raise InvalidInputError(
                f"an ext4 image can't have {size} bytes", value=size, hint="256 KiB to just under 16 TiB"
            )
        rest = blocks % BLOCKS_PER_GROUP
        if blocks > BLOCKS_PER_GROUP and rest < _MIN_LAST_GROUP:
            blocks -= rest
        return cls(blocks, backup)

    @property
    def groups(self) -> int:
        return -(-self.blocks // BLOCKS_PER_GROUP)

    @property
    def first_content(self) -> int:
        """The first block behind the superblock and the descriptors."""
        return 1 + -(-self.groups * DESCRIPTOR_SIZE // BLOCK_SIZE)

    @property
    def backup_group(self) -> int:
        """The group of the backup, 0 for none."""
        return self.groups - 1 if self.backup else 0

    @property
    def content_end(self) -> int:
        """The first block that may not be handed out."""
        return self.backup_group * BLOCKS_PER_GROUP or self.blocks

    def length(self, group: int) -> int:
        """The number of blocks of a group: the last one may be short."""
        return min(BLOCKS_PER_GROUP, self.blocks - group * BLOCKS_PER_GROUP)

    def inodes_per_group(self, inodes: int) -> int:
        """Room for `inodes` inodes and an eighth more, and at least in proportion to the image's size."""
        share = min(_DEFAULT_INODES, self.blocks // 4 // self.groups)
        wanted = max(share, -(-(inodes + inodes // 8) // self.groups))
        return min(-(-wanted // _INODES_PER_BLOCK) * _INODES_PER_BLOCK, BLOCKS_PER_GROUP)
