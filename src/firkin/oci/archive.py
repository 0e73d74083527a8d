"""Reading an untrusted tar of an image once, front to back, from a file or a pipe."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from firkin.errors import FirkinError, ImageError
from firkin.oci.compression import compression_of, unpack
from firkin.oci.manifest import ImageLimits

__all__ = ["Unpacked", "members", "opened"]

# Headers that tarfile reads into memory whole: PAX records and GNU's long names.
_EXTENSIONS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_EXTENSION_MAX = 1 << 20


class _BoundedInfo(tarfile.TarInfo):
    """Refuses extension headers that claim to be huge, before they are read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BoundedInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _EXTENSIONS and info.size > _EXTENSION_MAX):
            raise ImageError("the archive has a header of an impossible size")
        return info


class Unpacked(io.RawIOBase):
    """A file whose gzip or zstd compression is undone while it is read, up to `limit` unpacked bytes."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        start = b""
        while len(start) < 8 and (more := file.read(8 - len(start))):
            start += more
        self._chunks = unpack(_Rejoined(start, file), compression_of(start))
        self._current = memoryview(b"")
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a part of `buffer`; 0 only at the end. Raises `ImageError`."""
        while not self._current:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left -= len(chunk)
            if self._left < 0:
                raise ImageError("the archive unpacks to more than it may")
            self._current = memoryview(chunk)
        count = min(len(buffer), len(self._current))
        buffer[:count] = self._current[:count]
        self._current = self._current[count:]
        return count


class _Rejoined:
    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        self._start = start
        self._file = file

    def read(self, limit: int, /) -> bytes:
        if self._start:
            start, self._start = self._start, b""
            return start
        return self._file.read(limit)


@contextlib.contextmanager
def opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """The archive at a path, or one that is open already and stays so. Raises `ImageError` where there is none."""
    if not isinstance(source, Path):
        yield source
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise ImageError(f"can't read {source}: {error.strerror}") from error
    with file:
        yield file


def members(file: IO[bytes], limits: ImageLimits) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Every member of the tar, with its content where it is a regular file, to be read before the next one.

    Raises `ImageError` where the tar is damaged or passes `limits`.
    """
    plain = io.BufferedReader(Unpacked(file, limits.archive), 1 << 20)
    count = 0
    try:
        with tarfile.open(fileobj=plain, mode="r|", tarinfo=_BoundedInfo, bufsize=1 << 20) as archive:
            for member in archive:
                count += 1
                if count > limits.members:
                    raise ImageError(f"the archive has more than {limits.members} members")
                # A list of what has passed is kept for random access, which a pipe does not have.
                archive.members.clear()  # type: ignore[attr-defined]
                if member.issparse():
                    raise ImageError("the archive has a sparse member, which images do not use")
                yield member, archive.extractfile(member) if member.isreg() else None
    except FirkinError:
        raise
    except (tarfile.TarError, EOFError, ValueError, RecursionError, OverflowError) as error:
        raise ImageError("the archive is not a valid tar") from error
