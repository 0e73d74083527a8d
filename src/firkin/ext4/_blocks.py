"""The image's blocks: handed out in rising order and written in the same order, in large pieces."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

from firkin.errors import ImageError
from firkin.ext4._layout import BLOCK_SHIFT, BLOCK_SIZE, blocks_of
from firkin.ext4.limits import Limits

__all__ = ["BlockWriter"]

_PENDING = 1 << 20
_DIRECT = 128 * 1024
_PUNCH_HOLE = 0x01 | 0x02  # linux/falloc.h: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_ZEROS = bytes(BLOCK_SIZE)


class BlockWriter:
    """Appends content at the next free block. `next` is that block; nothing behind it has been handed out."""

    def __init__(self, fd: int, first: int, total: int, limits: Limits) -> None:
        self._fd = fd
        self.next = first
        self.total = total
        self._limit = limits.max_bytes
        self._buffer = bytearray(_PENDING)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._first = first
        self._written = 0

    @property
    def bytes_written(self) -> int:
        """Bytes of the blocks appended so far, padding included."""
        return self._written

    def reserve(self, count: int) -> int:
        """Hand out `count` blocks without writing them; the first of them."""
        self.flush()
        start = self.next
        self._advance(count)
        self._first = self.next
        return start

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Write `data`, padded with zeros to whole blocks, and return its first block."""
        size = len(data)
        start = self.next
        if size > _DIRECT:
            return self._append_directly(memoryview(data))
        count = blocks_of(size)
        self._advance(count)
        at = self._filled
        end = at + (count << BLOCK_SHIFT)
        if end > _PENDING:
            self._write_pending()
            self._first = start
            at, end = 0, count << BLOCK_SHIFT
        stop = at + size
        self._buffer[at:stop] = data
        if stop != end:
            self._buffer[stop:end] = _ZEROS[: end - stop]
        self._filled = end
        return start

    def flush(self) -> None:
        """Write what is pending."""
        self._write_pending()
        self._first = self.next

    def write_at(self, block: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data` at a block handed out before."""
        self._pwrite(memoryview(data), block << BLOCK_SHIFT)

    def write_at_offset(self, block: int, offset: int, data: bytes) -> None:
        """Write `data` inside a block handed out and flushed before."""
        self._pwrite(memoryview(data), (block << BLOCK_SHIFT) + offset)

    def discard(self, ranges: list[tuple[int, int]]) -> None:
        """Make ranges (first block, count), flushed before, read as zeros and, where the host can, cost nothing."""
        for start, count in _merged(ranges):
            offset, length = start << BLOCK_SHIFT, count << BLOCK_SHIFT
            if not _punch(self._fd, offset, length):
                for at in range(offset, offset + length, _PENDING):
                    self._pwrite(memoryview(bytes(min(_PENDING, offset + length - at))), at)

    def _append_directly(self, data: memoryview) -> int:
        self.flush()
        start = self.next
        whole = len(data) & -BLOCK_SIZE
        self._advance(blocks_of(len(data)))
        self._pwrite(data[:whole], start << BLOCK_SHIFT)
        if whole != len(data):
            tail = bytes(data[whole:]).ljust(BLOCK_SIZE, b"\0")
            self._pwrite(memoryview(tail), (start << BLOCK_SHIFT) + whole)
        self._first = self.next
        return start

    def _write_pending(self) -> None:
        if self._filled:
            self._pwrite(self._view[: self._filled], self._first << BLOCK_SHIFT)
            self._filled = 0

    def _advance(self, count: int) -> None:
        self.next += count
        if self.next > self.total:
            raise ImageError(
                f"the layers do not fit into an image of {self.total << BLOCK_SHIFT} bytes",
                hint="ask for a larger size",
            )

    def _pwrite(self, data: memoryview, offset: int) -> None:
        self._written += len(data)
        if self._written > self._limit:
            raise ImageError(f"the image takes more than {self._limit} bytes", hint="raise Limits.max_bytes")
        try:
            while data:
                done = os.pwrite(self._fd, data, offset)
                data, offset = data[done:], offset + done
        except OSError as error:
            raise ImageError(f"can't write the image: {error.strerror}") from error


def _merged(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    start = end = 0
    for block, count in sorted(ranges):
        if block != end:
            if end:
                yield start, end - start
            start = block
        end = block + count
    if end:
        yield start, end - start


def _punch(fd: int, offset: int, length: int) -> bool:
    """fallocate(2), which Python's `os` does not have."""
    mode, start, size = _PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(length)
    return bool(ctypes.CDLL(None).fallocate64(fd, mode, start, size) == 0)
