"""A file's content: from the layer's stream to blocks of the image, holes kept."""

from __future__ import annotations

from firkin.errors import ImageError
from firkin.ext4._blocks import BlockWriter
from firkin.ext4._extents import Run
from firkin.ext4._layout import BLOCK_SHIFT, BLOCK_SIZE, MAX_FILE_BLOCKS, blocks_of
from firkin.ext4._member import Member
from firkin.ext4._stream import LayerStream

__all__ = ["SMALL", "ContentWriter"]

SMALL = 64 * 1024
"""Files up to this size are written whole; larger ones are searched for holes of this granularity."""

_STAGING = 16 * SMALL
_ZEROS = bytes(SMALL)


class ContentWriter:
    """Copies large and sparse files through one staging buffer.

    Runs of zeros that cover a whole aligned piece of 64 KiB become holes: most tars of images do not say where holes
    are.
    """

    def __init__(self, blocks: BlockWriter) -> None:
        self._blocks = blocks
        self._staging = bytearray(_STAGING)
        self._view = memoryview(self._staging)

    def copy(self, member: Member, stream: LayerStream) -> list[Run]:
        """Take the content of `member` from `stream` and return where it lies."""
        if blocks_of(member.size) > MAX_FILE_BLOCKS:
            raise ImageError(f"{member.name[:80]!r} is too large for ext4")
        runs: list[Run] = []
        if member.sparse is None:
            self._copy_run(0, [(0, member.size)], stream, runs)
            return runs
        pieces: list[tuple[int, int]] = []
        end = 0
        for offset, length in member.sparse:
            if pieces and offset >> BLOCK_SHIFT > blocks_of(end):
                self._copy_run(pieces[0][0] >> BLOCK_SHIFT, pieces, stream, runs)
                pieces = []
            pieces.append((offset, length))
            end = offset + length
        if pieces:
            self._copy_run(pieces[0][0] >> BLOCK_SHIFT, pieces, stream, runs)
        return runs

    def _copy_run(self, logical: int, pieces: list[tuple[int, int]], stream: LayerStream, runs: list[Run]) -> None:
        """Copy data regions that leave no whole block between them, from the block `logical` on."""
        filled, at = 0, logical << BLOCK_SHIFT
        for offset, length in pieces:
            gap = offset - at
            at = offset + length
            left = length
            while gap or left:
                if filled == _STAGING:
                    logical = self._emit(logical, filled, runs)
                    filled = 0
                step = min(gap or left, _STAGING - filled)
                if gap:
                    self._view[filled : filled + step] = bytes(step)
                    gap -= step
                else:
                    stream.readinto(self._view[filled : filled + step])
                    left -= step
                filled += step
        padding = -filled % BLOCK_SIZE
        self._view[filled : filled + padding] = bytes(padding)
        self._emit(logical, filled + padding, runs)

    def _emit(self, logical: int, size: int, runs: list[Run]) -> int:
        start = 0
        for at in range(0, size, SMALL):
            stop = min(at + SMALL, size)
            if stop - at == SMALL and not self._staging[at] and self._staging[at:stop] == _ZEROS:
                self._store(logical, start, at, runs)
                start = stop
        self._store(logical, start, size, runs)
        return logical + (size >> BLOCK_SHIFT)

    def _store(self, logical: int, start: int, stop: int, runs: list[Run]) -> None:
        if start == stop:
            return
        physical = self._blocks.append(self._view[start:stop])
        logical += start >> BLOCK_SHIFT
        count = (stop - start) >> BLOCK_SHIFT
        if runs:
            before, where, length = runs[-1]
            if before + length == logical and where + length == physical:
                runs[-1] = (before, where, length + count)
                return
        runs.append((logical, physical, count))
