"""A layer's bytes, buffered: headers and small files out of one big buffer, large ones straight into the caller's."""

from __future__ import annotations

from typing import Protocol

from firkin.errors import ImageError
from firkin.ext4.limits import Budget

__all__ = ["LayerStream", "Readable"]

_CAPACITY = 1 << 20


class Readable(Protocol):
    """A layer: uncompressed tar, read once from front to back. `readinto` is used instead where it exists."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


class LayerStream:
    """Buffered reading of one layer, never seeking. `buffer[position:end]` is what is at hand."""

    def __init__(self, raw: Readable, budget: Budget) -> None:
        self.buffer = bytearray(_CAPACITY)
        self.view = memoryview(self.buffer)
        self.position = 0
        self.end = 0
        self._raw = raw
        self._readinto = getattr(raw, "readinto", None)
        self._budget = budget

    def want(self, count: int) -> int:
        """Have `count` bytes (at most 1 MiB) at `position`, or as many as the stream still has; how many there are."""
        have = self.end - self.position
        if have >= count:
            return count
        if have:
            self.buffer[:have] = self.buffer[self.position : self.end]
        self.position, self.end = 0, have
        while self.end < count:
            got = self._read_some(self.view[self.end :])
            if not got:
                return self.end
            self.end += got
        return count

    def need(self, count: int) -> int:
        """Step over `count` bytes (at most 1 MiB), which are then at the position returned; all must be there."""
        if self.want(count) < count:
            raise _truncated()
        start = self.position
        self.position = start + count
        return start

    def take(self, count: int) -> bytes:
        """The next `count` bytes; the caller has bounded `count`."""
        if count <= _CAPACITY:
            start = self.need(count)
            return bytes(self.view[start : start + count])
        data = bytearray(count)
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, target: memoryview) -> None:
        """Fill `target`, past the buffer as far as it is empty; `ImageError` where the stream ends before."""
        filled = min(len(target), self.end - self.position)
        target[:filled] = self.view[self.position : self.position + filled]
        self.position += filled
        while filled < len(target):
            got = self._read_some(target[filled:])
            if not got:
                raise _truncated()
            filled += got

    def skip(self, count: int) -> None:
        """Step over `count` bytes."""
        while count:
            step = min(count, _CAPACITY)
            self.need(step)
            count -= step

    def drain(self) -> None:
        """Read to the end, so that a reader that hashes or decompresses behind this stream sees all of it."""
        self.position = self.end
        while self._read_some(self.view):
            pass

    def _read_some(self, target: memoryview) -> int:
        if self._readinto is not None:
            got = self._readinto(target)
        else:
            data = self._raw.read(len(target))
            got = len(data)
            if got > len(target):
                raise ImageError("a tar stream returned more than it was asked for")
            target[:got] = data
        if got:
            self._budget.read(got)
        return got or 0


def _truncated() -> ImageError:
    return ImageError("the tar ends in the middle of a file", hint="fetch the image again")
