"""Reading an ext4 image: superblock, inodes and extents, each number from the image checked before it is used."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from firkin.errors import ImageError
from firkin.ext4._layout import (
    EXTENT_MAGIC,
    EXTENTS_FLAG,
    INCOMPAT_64BIT,
    INCOMPAT_CSUM_SEED,
    INCOMPAT_EXTENTS,
    INCOMPAT_FILETYPE,
    INCOMPAT_FLEX_BG,
    INCOMPAT_LARGEDIR,
    INCOMPAT_RECOVER,
    INODE,
    INODE_SIZE,
    SUPER_MAGIC,
    SUPER_OFFSET,
    unpack_super,
)

__all__ = ["Image", "Inode"]

_UNDERSTOOD = (
    INCOMPAT_64BIT
    | INCOMPAT_CSUM_SEED
    | INCOMPAT_EXTENTS
    | INCOMPAT_FILETYPE
    | INCOMPAT_FLEX_BG
    | INCOMPAT_LARGEDIR
    | INCOMPAT_RECOVER
)
_SUPER_SIZE = 1024
_MAX_DEPTH = 5
_MAX_SIZE = 1 << 44  # 2^32 blocks of 4 KiB
_NODE = struct.Struct("<HHHHI")
_ENTRY = struct.Struct("<IHHI")
_INIT_MAX = 32768  # longer lengths mark an extent as allocated but never written: it reads as zeros
_OLD_INODE_SIZE = 128


class Inode(NamedTuple):
    """One inode, decoded. Times are in nanoseconds since the epoch, `blocks` in units of 512 bytes."""

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    links: int
    blocks: int
    flags: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    block_map: bytes
    xattr_block: int
    inline_xattrs: bytes


class Image:
    """An open image, read-only. Every method raises `ImageError` for what a well-formed image would not hold."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(f"can't read the image {path}: {error.strerror}") from error
        self._path = path
        try:
            self._read_super()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def damaged(self, what: str) -> ImageError:
        """The error for an image that is not well-formed."""
        return ImageError(f"the image {self._path} is damaged: {what}", hint="e2fsck -f may say more")

    def _read_super(self) -> None:
        fields = unpack_super(self._pread(SUPER_OFFSET, _SUPER_SIZE))
        if fields["magic"] != SUPER_MAGIC:
            raise ImageError(f"{self._path} is not an ext4 image")
        incompat, first, per_group = fields["feature_incompat"], fields["first_data_block"], fields["blocks_per_group"]
        unknown = incompat & ~_UNDERSTOOD
        if unknown or not incompat & INCOMPAT_FILETYPE:
            raise ImageError(f"the image {self._path} has features that Firkin can't read: {unknown:#x}")
        wide = bool(incompat & INCOMPAT_64BIT)
        self.needs_recovery = bool(incompat & INCOMPAT_RECOVER)
        self.block_size = 1024 << min(fields["log_block_size"], 8)
        self.blocks = fields["blocks_count"] | (fields["blocks_count_hi"] << 32 if wide else 0)
        self._inodes, self._inodes_per_group = fields["inodes_count"], fields["inodes_per_group"]
        self._inode_size, self._descriptor_size = fields["inode_size"], fields["desc_size"] if wide else 32
        if (
            self.block_size not in (1024, 2048, 4096)
            or not 0 < per_group <= 8 * self.block_size
            or not 0 < self._inodes_per_group <= 8 * self.block_size
            or self._inode_size not in (_OLD_INODE_SIZE, INODE_SIZE, 512, 1024)
            or self._descriptor_size not in (32, 64)
            or not first < self.blocks
        ):
            raise self.damaged("its superblock makes no sense")
        if self.blocks * self.block_size > os.lseek(self._fd, 0, os.SEEK_END):
            raise self.damaged("it is cut short")
        self._descriptors = (first + 1) * self.block_size
        self._groups = -(-(self.blocks - first) // per_group)

    def inode(self, number: int) -> Inode:
        """The inode `number`."""
        group, index = divmod(number - 1, self._inodes_per_group)
        if not 0 < number <= self._inodes or group >= self._groups:
            raise self.damaged(f"it has no inode {number}")
        size = self._descriptor_size
        descriptor = self._pread(self._descriptors + group * size, size)
        table = int.from_bytes(descriptor[8:12], "little")
        if size == 64:
            table |= int.from_bytes(descriptor[40:44], "little") << 32
        if not 0 < table < self.blocks:
            raise self.damaged(f"the inode table of group {group} lies outside")
        raw = self._pread(table * self.block_size + index * self._inode_size, self._inode_size)
        extra = int.from_bytes(raw[128:130], "little") if self._inode_size > _OLD_INODE_SIZE else 0
        if extra & 3 or extra > self._inode_size - _OLD_INODE_SIZE:
            raise self.damaged(f"inode {number} is malformed")
        inode = _decode(number, raw, extra)
        if inode.size > _MAX_SIZE:
            raise self.damaged(f"inode {number} is larger than a file can be")
        return inode

    def read(self, inode: Inode, offset: int, length: int) -> bytes:
        """At most `length` bytes of a file's content from `offset` on; holes are zeros. The caller bounds `length`."""
        length = max(0, min(length, inode.size - offset))
        result = bytearray(length)
        if not length:
            return b""
        end = offset + length
        for logical, physical, count in self.extents(inode, offset // self.block_size):
            start = logical * self.block_size
            if start >= end:
                break
            low, high = max(start, offset), min(start + count * self.block_size, end)
            if low < high:
                result[low - offset : high - offset] = self._pread(physical * self.block_size + low - start, high - low)
        return bytes(result)

    def extents(self, inode: Inode, first: int = 0) -> Iterator[tuple[int, int, int]]:
        """The written extents (logical block, physical block, count) of a file in order, from block `first` on."""
        if not inode.flags & EXTENTS_FLAG:
            raise ImageError(
                f"inode {inode.number} of {self._path} has no extents: Firkin can't read ext2 and ext3 files"
            )
        yield from self._node(inode.block_map, None, (0, 1 << 32), first)

    def block(self, number: int) -> bytes:
        """One block."""
        if not 0 < number < self.blocks:
            raise self.damaged(f"it refers to block {number}, which it does not have")
        return self._pread(number * self.block_size, self.block_size)

    def _node(
        self, data: bytes, depth: int | None, span: tuple[int, int], first: int
    ) -> Iterator[tuple[int, int, int]]:
        """Every node must keep to its part (`span`) of the file and hold something, so that no tree is endless."""
        magic, count, _, height, _ = _NODE.unpack_from(data)
        root = depth is None
        if (
            magic != EXTENT_MAGIC
            or height > _MAX_DEPTH
            or (not root and (height != depth or not count))
            or _NODE.size + count * _ENTRY.size > len(data)
        ):
            raise self.damaged("an extent tree is malformed")
        entries = [_ENTRY.unpack_from(data, _NODE.size + index * _ENTRY.size) for index in range(count)]
        low = span[0]
        for index, (logical, second, third, fourth) in enumerate(entries):
            if not low <= logical < span[1]:
                raise self.damaged("an extent tree is out of order")
            if height:
                end = entries[index + 1][0] if index + 1 < count else span[1]
                low = logical + 1
                if end > first:
                    child = self.block(second | third << 16 | (fourth & 0xFFFF) << 32)  # an index entry's fields
                    yield from self._node(child, height - 1, (logical, end), first)
                continue
            length = second if second <= _INIT_MAX else second - _INIT_MAX
            physical = third << 32 | fourth
            low = logical + length
            if not length or low > span[1] or not 0 < physical <= self.blocks - length:
                raise self.damaged("an extent lies outside")
            if low > first and second <= _INIT_MAX:
                yield logical, physical, length

    def _pread(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._fd, length, offset)
        except OSError as error:
            raise ImageError(f"can't read the image {self._path}: {error.strerror}") from error
        if len(data) == length:
            return data
        if offset > SUPER_OFFSET:
            raise self.damaged("it is cut short")
        raise ImageError(f"{self._path} is not an ext4 image")


def _decode(number: int, raw: bytes, extra: int) -> Inode:
    fields = INODE.unpack(raw[:INODE_SIZE].ljust(INODE_SIZE, b"\0"))
    ctime_extra, mtime_extra, atime_extra = (
        fields[at] if extra >= needed else 0 for at, needed in ((25, 8), (26, 12), (27, 16))
    )
    return Inode(
        number=number,
        mode=fields[0],
        uid=fields[1] | fields[19] << 16,
        gid=fields[7] | fields[20] << 16,
        size=fields[2] | fields[15] << 32,
        links=fields[8],
        blocks=fields[9] | fields[17] << 32,
        flags=fields[10],
        atime_ns=_nanoseconds(fields[3], atime_extra),
        mtime_ns=_nanoseconds(fields[5], mtime_extra),
        ctime_ns=_nanoseconds(fields[4], ctime_extra),
        block_map=fields[12],
        xattr_block=fields[14] | fields[18] << 32,
        inline_xattrs=raw[_OLD_INODE_SIZE + extra :] if extra else b"",
    )


def _nanoseconds(low: int, extra: int) -> int:
    seconds = (low - (1 << 32) if low & 0x80000000 else low) + ((extra & 3) << 32)
    return seconds * 1_000_000_000 + (extra >> 2)
