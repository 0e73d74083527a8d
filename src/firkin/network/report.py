"""Refusals as JSON lines, so many a second and no more: a guest that scans must not fill the host's disk."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["Refusals"]

_log = logging.getLogger("firkin.network.refused")
_BURST, _A_SECOND = 100.0, 10.0
_LARGEST_FILE: Final = 4 << 20


class Refusals:
    """Writes to `path` (none: only to the logger `firkin.network.refused`); at `largest` bytes it begins again, keeping
    one old file.

    A line has `time`, `reason`, `protocol` and what else is known; `suppressed` counts those before it that were too
    many.
    """

    def __init__(self, path: Path | None, *, largest: int = _LARGEST_FILE) -> None:
        self._file = None if path is None else _open(path)
        self._largest = largest
        self._tokens = _BURST
        self._last = 0.0
        self._suppressed = 0
        self.total = 0

    def add(self, now: float, reason: str, protocol: str, **details: object) -> None:
        """Report one refusal at the time `now` (a monotonic clock's)."""
        self.total += 1
        self._tokens = min(_BURST, self._tokens + (now - self._last) * _A_SECOND)
        self._last = now
        if self._tokens < 1:
            self._suppressed += 1
            return
        self._tokens -= 1
        line = {"time": datetime.now(UTC).isoformat(), "reason": reason, "protocol": protocol, **details}
        if self._suppressed:
            line["suppressed"] = self._suppressed
            self._suppressed = 0
        text = json.dumps(line)
        _log.info("%s", text)
        if self._file is not None:
            self._write(self._file, text.encode() + b"\n")

    def _write(self, file: BinaryIO, line: bytes) -> None:
        # A full disk must not end the network.
        with suppress(OSError):
            if file.tell() + len(line) > self._largest:
                file.close()
                path = Path(file.name)
                path.replace(path.with_suffix(".old"))
                self._file = file = _open(path)
            file.write(line)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _open(path: Path) -> BinaryIO:
    return path.open("ab", buffering=0)
