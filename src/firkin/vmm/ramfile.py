"""RAM files: copied without their empty pages, and known again by content or by identity."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator

__all__ = ["copy_saved", "copy_sparse", "digest", "identity"]

_PAGE = 4096
_CHUNK = 1 << 20
_EMPTY = bytes(_CHUNK)


def copy_sparse(source: int, destination: int, at: int = 0) -> int:
    """Copy the file at `source` to `at` in `destination`, which is empty from there on; pages of zeros become holes.

    The bytes written.
    """
    size = os.fstat(source).st_size
    os.ftruncate(destination, max(at + size, os.fstat(destination).st_size))
    written = 0
    for offset, run in _runs(source, size):
        written += os.pwrite(destination, run, at + offset)
    return written


def copy_saved(source: int, destination: int) -> None:
    """Copy a file that `copy_sparse` made, hole for hole, by the kernel."""
    size = os.fstat(source).st_size
    os.ftruncate(destination, size)
    end = 0
    while end < size:
        try:
            begin = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(source, begin, os.SEEK_HOLE)
        os.lseek(destination, begin, os.SEEK_SET)
        while begin < end:
            begin += os.sendfile(destination, source, begin, end - begin)


def digest(fd: int) -> str:
    """SHA-256 over size and content, as hexadecimal; a hole and a page of zeros are the same."""
    size = os.fstat(fd).st_size
    hashed = hashlib.sha256(b"%d" % size)
    for offset, run in _runs(fd, size):
        for start in range(0, len(run), _PAGE):
            page = run[start : start + _PAGE]
            hashed.update(b"%d" % (offset + start))
            hashed.update(page)
    return hashed.hexdigest()


def identity(fd: int) -> list[int]:
    """Inode, size, and the times of the last change of content and of inode in ns: equal while nobody wrote the file.

    ctime can't be set back by any system call.
    """
    found = os.fstat(fd)
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _runs(fd: int, size: int) -> Iterator[tuple[int, memoryview]]:
    """The file's runs of pages that are not all zeros, within chunks of 1 MiB."""
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA) // _CHUNK * _CHUNK
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        chunk = os.pread(fd, _CHUNK, offset)
        if chunk != _EMPTY[: len(chunk)]:
            yield from _pages(chunk, offset)
        offset += _CHUNK


def _pages(chunk: bytes, offset: int) -> Iterator[tuple[int, memoryview]]:
    view = memoryview(chunk)
    begin = 0
    for at in range(0, len(chunk), _PAGE):
        page = chunk[at : at + _PAGE]
        if page == _EMPTY[: len(page)]:
            if begin < at:
                yield offset + begin, view[begin:at]
            begin = at + _PAGE
    if begin < len(chunk):
        yield offset + begin, view[begin:]
