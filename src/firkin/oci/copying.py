"""Files copied as cheaply as the file system allows: by sharing blocks, else range by range, holes kept."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Literal

__all__ = ["Method", "copy_content", "copy_file"]

Method = Literal["clone", "copy"]
_FICLONE = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h


def copy_file(source: Path, target: int) -> Method:
    """As `copy_content`, of the whole file at `source`."""
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return copy_content(descriptor, target, os.lseek(descriptor, 0, os.SEEK_END))
    finally:
        os.close(descriptor)


def copy_content(source: int, target: int, length: int) -> Method:
    """Make the empty file at `target` equal to the first `length` bytes, all, of `source`: `clone` shares blocks."""
    if _clone(source, target):
        return "clone"
    _copy(source, target, length)
    return "copy"


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM):
            return False
        raise
    return True


def _copy(source: int, target: int, length: int) -> None:
    os.ftruncate(target, length)
    position = 0
    while position < length:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # Only a hole is left.
            if error.errno != errno.EINVAL:
                raise
            start, end = position, length  # A file system that does not know of holes.
        _copy_range(source, target, start, end)
        position = end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            count = os.copy_file_range(source, target, min(end - start, 1 << 30), start, start)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            count = os.pwrite(target, os.pread(source, min(end - start, 1 << 20), start), start)
        if count == 0:
            raise OSError(errno.EIO, "the source became shorter while it was copied")
        start += count
