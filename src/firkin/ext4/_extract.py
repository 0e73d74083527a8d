"""Copying out of an image into a directory of the host, and never beside it.

Each directory is opened once, relative to the one above and without following symlinks; whatever is made is made
relative to such a descriptor, under a name that is a single component and did not exist.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firkin.errors import ImageError
from firkin.ext4._decode import directory_entries
from firkin.ext4._image import Image, Inode
from firkin.ext4.limits import Budget

__all__ = ["ExtractReport", "Extractor"]

_CHUNK = 1 << 20
_MAX_DEPTH = 128  # each takes a descriptor and three frames
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What `ImageReader.extract` made: files and directories, bytes of content, and the paths it left out."""

    files: int
    bytes: int
    skipped: tuple[str, ...]


class Extractor:
    """One copy out of an image."""

    def __init__(self, image: Image, target_of: Callable[[Image, Inode], bytes], budget: Budget) -> None:
        self._image = image
        self._target_of = target_of
        self._budget = budget
        self._files = 0
        self._skipped: list[str] = []
        self._linked: dict[int, tuple[bytes, ...]] = {}
        self._folders: set[int] = set()

    def extract(self, inode: Inode, name: bytes, destination: Path) -> ExtractReport:
        """Copy `inode` as `name` into `destination`; without a name, its content."""
        try:
            self._root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if name in (b"", b".", b".."):
                    self._fill(self._root, inode, ())
                else:
                    self._make(self._root, inode, (name,))
            finally:
                os.close(self._root)
        except OSError as error:
            where = f"{destination}/{os.fsdecode(error.filename)}" if error.filename else str(destination)
            raise ImageError(f"can't copy out to {where}: {error.strerror}") from error
        return ExtractReport(self._files, self._budget.bytes_read, tuple(self._skipped))

    def _make(self, folder: int, inode: Inode, path: tuple[bytes, ...]) -> None:
        self._files += 1
        self._budget.inodes(self._files)
        name = path[-1]
        if stat.S_ISDIR(inode.mode):
            self._make_directory(folder, inode, path)
            return
        if inode.links > 1 and inode.number in self._linked and self._link(folder, name, self._linked[inode.number]):
            return
        if stat.S_ISREG(inode.mode):
            self._make_file(folder, name, inode)
        elif stat.S_ISLNK(inode.mode):
            os.symlink(self._target_of(self._image, inode), name, dir_fd=folder)
        elif stat.S_ISFIFO(inode.mode):
            os.mkfifo(name, stat.S_IMODE(inode.mode) & 0o777, dir_fd=folder)
        else:
            self._files -= 1
            self._skipped.append("/" + os.fsdecode(b"/".join(path)))
            return
        os.utime(name, ns=(inode.atime_ns, inode.mtime_ns), dir_fd=folder, follow_symlinks=False)
        if inode.links > 1:
            self._linked[inode.number] = path

    def _make_directory(self, folder: int, inode: Inode, path: tuple[bytes, ...]) -> None:
        if len(path) > _MAX_DEPTH:
            raise ImageError(f"can't copy out a tree of more than {_MAX_DEPTH} levels")
        os.mkdir(path[-1], 0o700, dir_fd=folder)
        inner = os.open(path[-1], _DIRECTORY_FLAGS, dir_fd=folder)
        try:
            self._fill(inner, inode, path)
            os.fchmod(inner, inode.mode & 0o777)
            os.utime(inner, ns=(inode.atime_ns, inode.mtime_ns))
        finally:
            os.close(inner)

    def _fill(self, folder: int, inode: Inode, path: tuple[bytes, ...]) -> None:
        if not stat.S_ISDIR(inode.mode):
            raise self._image.damaged("its root is not a directory")
        if inode.number in self._folders:
            raise self._image.damaged("a directory is inside itself or in two places")
        self._folders.add(inode.number)
        self._budget.check_time()
        for name, number in directory_entries(self._image, inode):
            self._make(folder, self._image.inode(number), (*path, name))

    def _make_file(self, folder: int, name: bytes, inode: Inode) -> None:
        output = os.open(name, _FILE_FLAGS, 0o600, dir_fd=folder)
        try:
            os.ftruncate(output, inode.size)
            size = self._image.block_size
            for logical, _, count in self._image.extents(inode):
                start, stop = logical * size, min((logical + count) * size, inode.size)
                for offset in range(start, stop, _CHUNK):
                    data = self._image.read(inode, offset, min(_CHUNK, stop - offset))
                    self._budget.read(len(data))
                    self._write(output, data, offset)
            os.fchmod(output, inode.mode & 0o777)
        finally:
            os.close(output)

    @staticmethod
    def _write(output: int, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(output, view, offset)
            view, offset = view[done:], offset + done

    def _link(self, folder: int, name: bytes, path: tuple[bytes, ...]) -> bool:
        """Make a hard link to what was made at `path`, stepping down from the destination; false where it has gone."""
        here = os.dup(self._root)
        try:
            for part in path[:-1]:
                inner = os.open(part, _DIRECTORY_FLAGS, dir_fd=here)
                os.close(here)
                here = inner
            os.link(path[-1], name, src_dir_fd=here, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        finally:
            os.close(here)
        return True
