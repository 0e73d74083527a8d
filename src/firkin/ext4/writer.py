"""From layers to an ext4 image, in one pass."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from firkin.errors import ImageError, InvalidInputError, StateError
from firkin.ext4._apply import LayerApplier
from firkin.ext4._blocks import BlockWriter
from firkin.ext4._finish import Finisher
from firkin.ext4._geometry import Geometry
from firkin.ext4._inode import directory_attributes
from firkin.ext4._layout import BLOCK_SHIFT, FIRST_INODE, ROOT_INODE
from firkin.ext4._stream import LayerStream, Readable
from firkin.ext4._tree import Tree
from firkin.ext4.limits import Budget, Limits
from firkin.ext4.report import ImageReport

__all__ = ["DEFAULT_SIZE", "Ext4Writer", "make_empty", "write_image"]

DEFAULT_SIZE = 16 << 30
"""The virtual size of an image: what is not used costs nothing on the host."""

_MAX_LABEL = 16


class Ext4Writer:
    """Writes one image, layer by layer.

    `destination` is made, or emptied if it exists; it becomes an ext4 image with the last write of `finish`. Leaving
    the block without `finish` leaves an unusable file, which is the caller's to remove, as is publishing a finished
    one. Not safe for several threads. The same layers, size, label and timestamp give the same bytes.
    """

    def __init__(
        self,
        destination: Path,
        *,
        size: int = DEFAULT_SIZE,
        journal: bool = False,
        limits: Limits | None = None,
        label: str = "",
        timestamp: int = 0,
        backup: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`size` is in bytes, `timestamp` in seconds since the epoch: the time of whatever no layer gives a time to.

        Raises `InvalidInputError` for a size or label that ext4 can't have and `ImageError` where the file can't be
        made.
        """
        self._label = label.encode()
        if len(self._label) > _MAX_LABEL:
            raise InvalidInputError(f"a label has at most {_MAX_LABEL} bytes: {label!r}", value=label)
        self._geometry = Geometry.of_size(int(size), backup=backup)
        self._budget = Budget(limits or Limits(), clock)
        self._journal = journal
        self._timestamp = timestamp
        self._layers = 0
        self._usable = True
        try:
            self._fd = os.open(destination, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ImageError(f"can't write the image {destination}: {error.strerror}") from error
        try:
            os.ftruncate(self._fd, self._geometry.blocks << BLOCK_SHIFT)
        except OSError as error:
            os.close(self._fd)
            raise ImageError(f"can't make an image of {int(size)} bytes: {error.strerror}") from error
        first, end = self._geometry.first_content, self._geometry.content_end
        self._blocks = BlockWriter(self._fd, first, end, self._budget.limits)
        self._tree = Tree(self._blocks, self._budget, timestamp)
        self._applier = LayerApplier(self._tree, self._blocks, self._budget, timestamp)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing more can be added."""
        self._usable = False
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add_layer(self, stream: Readable) -> None:
        """Apply the uncompressed tar `stream`, and read it to its end.

        Raises `ImageError` for what is not tar, can't be had in ext4 or crosses a limit; the writer is of no use
        afterwards. Whatever `stream.read` raises passes through.
        """
        self._require_usable()
        self._usable = False
        self._tree.begin_layer(self._layers)
        self._applier.apply(LayerStream(stream, self._budget))
        self._layers += 1
        self._usable = True

    def add_lost_found(self) -> None:
        """Make `/lost+found`, where e2fsck puts what it finds (it makes the directory itself where it is missing)."""
        self._require_usable()
        attributes = directory_attributes(0o700, self._timestamp)
        self._tree.put_directory(ROOT_INODE, b"lost+found", attributes)

    def finish(self) -> ImageReport:
        """Write the metadata. The file is complete then, but not synced to its disk. Raises `ImageError`."""
        self._require_usable()
        self._usable = False
        try:
            return self._finish()
        except OSError as error:
            raise ImageError(f"can't finish the image: {error.strerror}") from error

    def _finish(self) -> ImageReport:
        self._blocks.flush()
        self._blocks.discard(self._tree.freed)
        finisher = Finisher(self._tree, self._blocks, self._geometry, self._label, self._timestamp)
        groups = finisher.finish(journal=self._journal)
        return ImageReport(
            layers=self._layers,
            inodes=self._tree.inode_count
            - (FIRST_INODE - 1)
            - len(self._tree.unused)
            + 1,  # the root is among the reserved
            blocks_used=self._geometry.blocks - groups.free_blocks,
            bytes_read=self._budget.bytes_read,
            bytes_written=self._blocks.bytes_written,
            size=self._geometry.blocks << BLOCK_SHIFT,
            uuid=str(uuid.UUID(bytes=finisher.uuid)),
        )

    def _require_usable(self) -> None:
        if not self._usable:
            raise StateError("this image writer is closed, finished or has failed", hint="start a new one")


def write_image(
    layers: Iterable[Readable],
    destination: Path,
    *,
    size: int = DEFAULT_SIZE,
    journal: bool = False,
    limits: Limits | None = None,
    label: str = "",
    timestamp: int = 0,
) -> ImageReport:
    """Write the layers (uncompressed tars, the lowest first) to an ext4 image at `destination`, reading each once.

    The arguments and errors are those of `Ext4Writer`. A failed conversion leaves a file that is not an image.
    """
    with Ext4Writer(destination, size=size, journal=journal, limits=limits, label=label, timestamp=timestamp) as writer:
        for layer in layers:
            writer.add_layer(layer)
        return writer.finish()


def make_empty(
    destination: Path, size: int, *, journal: bool = True, label: str = "", timestamp: int = 0, lost_found: bool = True
) -> ImageReport:
    """Write an image for a volume or a writable layer: a root directory (0755, root) and, if asked, `lost+found`.

    Only some kilobytes of `size` bytes are written. Raises as `Ext4Writer` does.
    """
    with Ext4Writer(destination, size=size, journal=journal, label=label, timestamp=timestamp, backup=True) as writer:
        if lost_found:
            writer.add_lost_found()
        return writer.finish()
