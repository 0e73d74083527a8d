"""What a detached container wrote: two files of bounded size, written by its owner, read by anybody of its user."""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["LogReader", "LogWriter", "Record"]

_log = logging.getLogger(__name__)
# A record: its stream (1 stdout, 2 stderr), nanoseconds since 1970, the length of what follows.
_HEAD = struct.Struct("<BQI")
_MOST_RECORD = 1 << 20
_MOST_FILE = 8 << 20
_NAMES = ("output.1.log", "output.log")


class Record(NamedTuple):
    """One read of the container's output. `stream`: 1 is stdout, 2 stderr; `time_ns` since 1970."""

    stream: int
    time_ns: int
    data: bytes


class LogWriter:
    """Keeps the last 8 to 16 MiB in `folder`: a full file takes the place of the one before it."""

    def __init__(self, folder: Path) -> None:
        self._older, self._path = (folder / name for name in _NAMES)
        self._file: BinaryIO | None = self._open()

    def _open(self) -> BinaryIO:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "wb", buffering=0)

    def write(self, stream: int, data: bytes) -> None:
        """Append one record. A full disk ends the log, never the container."""
        if self._file is None:
            return
        try:
            if self._file.tell() + len(data) > _MOST_FILE:
                self._file.close()
                self._path.replace(self._older)
                self._file = self._open()
            self._file.write(_HEAD.pack(stream, time.time_ns(), len(data)) + data)
        except OSError as error:
            _log.warning("no more of the container's output is logged: %s", error)
            self.close()

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()
            self._file = None


class LogReader:
    """Reads the log in `folder` from its beginning, and on where it stopped. Raises `FileNotFoundError` for none."""

    def __init__(self, folder: Path) -> None:
        older, self._path = (folder / name for name in _NAMES)
        self._waiting: list[BinaryIO] = [older.open("rb")] if older.exists() else []
        self._waiting.append(self._path.open("rb"))

    def read(self) -> Iterator[Record]:
        """All whole records that are there now and were not read yet."""
        while self._waiting:
            file = self._waiting[0]
            yield from self._records(file)
            if len(self._waiting) == 1 and not self._is_current(file):
                # It was full and got its other name: what follows is in a new one.
                yield from self._records(file)
                self._waiting.append(self._path.open("rb"))
            if len(self._waiting) == 1:
                return
            self._waiting.pop(0).close()

    def _is_current(self, file: BinaryIO) -> bool:
        try:
            return os.fstat(file.fileno()).st_ino == self._path.stat().st_ino
        except FileNotFoundError:
            # Between the two, or the container has ended.
            return True

    @staticmethod
    def _records(file: BinaryIO) -> Iterator[Record]:
        while True:
            begin = file.tell()
            head = file.read(_HEAD.size)
            if len(head) == _HEAD.size:
                stream, time_ns, length = _HEAD.unpack(head)
                data = file.read(min(length, _MOST_RECORD))
                if len(data) == length:
                    yield Record(stream, time_ns, data)
                    continue
            file.seek(begin)
            return

    def close(self) -> None:
        """Close the files."""
        while self._waiting:
            self._waiting.pop().close()
