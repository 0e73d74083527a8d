"""What one conversion may cost: the bounds that an untrusted layer is held to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from firkin.errors import ImageError

__all__ = ["Budget", "Limits"]

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one conversion; crossing one is an `ImageError`.

    `max_bytes` bounds the bytes read from the layers and, separately, the bytes written to the image. `max_inodes`
    counts files, directories and special files alive at one time. `max_seconds` is wall time, looked at between
    reads: a read that blocks is the stream's own business. `max_path` bounds a name or link target, `max_xattr_bytes`
    the extended attributes of one file, `max_sparse_entries` the data regions of one sparse file.
    """

    max_bytes: int = 64 * _GIB
    max_inodes: int = 2_000_000
    max_seconds: float = 3600.0
    max_path: int = 4096
    max_xattr_bytes: int = 64 * 1024
    max_sparse_entries: int = 1 << 20


class Budget:
    """What is left of `Limits` while a conversion runs."""

    def __init__(
        self, limits: Limits, clock: Callable[[], float] = time.monotonic, *, what: str = "the layers"
    ) -> None:
        self.limits = limits
        self.bytes_read = 0
        self._what = what
        self._clock = clock
        self._deadline = clock() + limits.max_seconds

    def check_time(self) -> None:
        """Raise `ImageError` once `max_seconds` have passed."""
        if self._clock() > self._deadline:
            raise ImageError(
                f"working through {self._what} took more than {self.limits.max_seconds:g} s",
                hint="raise Limits.max_seconds",
            )

    def read(self, count: int) -> None:
        """Account for `count` bytes read. Raises `ImageError`."""
        self.bytes_read += count
        if self.bytes_read > self.limits.max_bytes:
            raise ImageError(
                f"{self._what} hold more than {self.limits.max_bytes} bytes", hint="raise Limits.max_bytes"
            )
        self.check_time()

    def inodes(self, count: int) -> None:
        """Check a number of live inodes. Raises `ImageError`."""
        if count > self.limits.max_inodes:
            raise ImageError(
                f"{self._what} hold more than {self.limits.max_inodes} files", hint="raise Limits.max_inodes"
            )
