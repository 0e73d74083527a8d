"""Reading files out of an ext4 image without mounting it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from firkin.errors import ImageError
from firkin.ext4._decode import directory_entries, xattrs_of
from firkin.ext4._extract import Extractor, ExtractReport
from firkin.ext4._image import Image, Inode
from firkin.ext4._layout import EXTENTS_FLAG, ROOT_INODE
from firkin.ext4.limits import Budget, Limits

__all__ = ["FileStat", "ImageReader"]

_MAX_SYMLINKS = 40
_MAX_TARGET = 4096
_MAX_READ = 1 << 28
_LISTINGS = 64  # directories remembered, since paths of one directory tend to be asked for together


@dataclass(frozen=True, slots=True)
class FileStat:
    """A file's attributes, named as in `os.stat_result`; `rdev` is (major, minor), `blocks` counts 512 bytes each."""

    inode: int
    mode: int
    uid: int
    gid: int
    size: int
    nlink: int
    blocks: int
    rdev: tuple[int, int]
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class ImageReader:
    """An open image; a context manager. Safe with images from anywhere: what is not well-formed is an `ImageError`.

    Paths are absolute inside the image (the first `/` may be left out) and lead nowhere else: symlinks are resolved
    inside it. Names that are not UTF-8 come and go with surrogate escapes, as in `os`.
    """

    def __init__(self, path: Path | str, *, limits: Limits | None = None) -> None:
        """`limits` bounds each `walk` and `extract`. Raises `ImageError` where `path` can't be read or is not ext4."""
        self._image = Image(Path(path))
        self._limits = limits or Limits()
        self._listings: dict[int, dict[bytes, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the image's file."""
        self._image.close()

    @property
    def needs_recovery(self) -> bool:
        """True where a journal holds changes that the image's own blocks lack: what is read may be out of date."""
        return self._image.needs_recovery

    def stat(self, path: str, *, follow: bool = True) -> FileStat:
        """The attributes of a file; with `follow`, of what a symlink leads to."""
        return _stat_of(self._resolve(path, follow=follow))

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """At most `length` bytes of a regular file from `offset` on; without `length`, all up to 256 MiB.

        Raises `ImageError`.
        """
        inode = self._resolve(path)
        if not stat.S_ISREG(inode.mode):
            raise ImageError(f"{path} is not a regular file")
        if offset < 0:
            raise ImageError(f"can't read {path} from {offset} on")
        wanted = max(0, inode.size - offset) if length is None else min(length, max(0, inode.size - offset))
        if wanted > _MAX_READ:
            raise ImageError(f"{path} has too many bytes to read at once", hint=f"read at most {_MAX_READ} at a time")
        return self._image.read(inode, offset, wanted)

    def iterdir(self, path: str) -> Iterator[str]:
        """The names in a directory, in no particular order, without `.` and `..`. Raises `ImageError`."""
        inode = self._resolve(path)
        if not stat.S_ISDIR(inode.mode):
            raise ImageError(f"{path} is not a directory")
        for name, _ in directory_entries(self._image, inode):
            yield os.fsdecode(name)

    def walk(self, path: str = "/") -> Iterator[tuple[str, FileStat]]:
        """Every file at and below `path` with its attributes, a directory before its content, symlinks not followed."""
        budget = Budget(self._limits, what="the image")
        seen: set[int] = set()
        pending = [(path.rstrip("/") or "/", self._resolve(path, follow=False))]
        count = 0
        while pending:
            here, inode = pending.pop()
            count += 1
            budget.inodes(count)
            yield here, _stat_of(inode)
            if not stat.S_ISDIR(inode.mode):
                continue
            budget.check_time()
            if inode.number in seen:
                raise self._image.damaged(f"the directory {here} is inside itself or in two places")
            seen.add(inode.number)
            prefix = here.rstrip("/")
            for name, number in directory_entries(self._image, inode):
                if len(pending) > self._limits.max_inodes:
                    budget.inodes(len(pending))
                pending.append((f"{prefix}/{os.fsdecode(name)}", self._image.inode(number)))

    def readlink(self, path: str) -> str:
        """The target of a symlink. Raises `ImageError`."""
        inode = self._resolve(path, follow=False)
        if not stat.S_ISLNK(inode.mode):
            raise ImageError(f"{path} is not a symlink")
        return os.fsdecode(_target(self._image, inode))

    def xattrs(self, path: str, *, follow: bool = False) -> dict[str, bytes]:
        """The extended attributes of a file by name, as listxattr(2) and getxattr(2) would give them."""
        inode = self._resolve(path, follow=follow)
        return {os.fsdecode(name): value for name, value in xattrs_of(self._image, inode).items()}

    def extract(self, path: str, destination: Path | str) -> ExtractReport:
        """Copy the file or tree at `path` into the existing directory `destination`, under its own name.

        The root's content goes into `destination` itself. Contents, permissions, times, symlinks and hard links are
        kept; owners and xattrs are not, nor set-id bits; devices and sockets are left out and reported. Nothing that
        exists is overwritten, nothing outside `destination` is touched, and no symlink is followed. Raises
        `ImageError`.
        """
        inode = self._resolve(path, follow=False)
        name = os.fsencode(path.rstrip("/").rpartition("/")[2])
        extractor = Extractor(self._image, _target, Budget(self._limits, what="the image"))
        return extractor.extract(inode, name, Path(destination))

    def _resolve(self, path: str, *, follow: bool = True) -> Inode:
        pending = os.fsencode(path).split(b"/")[::-1]
        trail = [self._image.inode(ROOT_INODE)]
        links = 0
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            child = self._child(trail[-1], part, path)
            if stat.S_ISLNK(child.mode) and (follow or any(pending)):
                links += 1
                if links > _MAX_SYMLINKS:
                    raise ImageError(f"{path} goes through too many symlinks")
                target = _target(self._image, child)
                if target[:1] == b"/":
                    del trail[1:]
                pending += target.split(b"/")[::-1]
            else:
                trail.append(child)
        return trail[-1]

    def _child(self, parent: Inode, name: bytes, path: str) -> Inode:
        if not stat.S_ISDIR(parent.mode):
            raise ImageError(f"the image has no {path}: a part of it is not a directory")
        names = self._listings.get(parent.number)
        if names is None:
            names = dict(islice(directory_entries(self._image, parent), self._limits.max_inodes))
            if len(self._listings) == _LISTINGS:
                self._listings.clear()
            self._listings[parent.number] = names
        if name not in names:
            raise ImageError(f"the image has no {path}")
        return self._image.inode(names[name])


def _target(image: Image, inode: Inode) -> bytes:
    if inode.flags & EXTENTS_FLAG:
        if inode.size >= _MAX_TARGET:
            raise image.damaged(f"the symlink of inode {inode.number} is too long")
        target = image.read(inode, 0, inode.size)
    else:
        target = inode.block_map[: inode.size]
    if not target or b"\0" in target or len(target) != inode.size:
        raise image.damaged(f"the symlink of inode {inode.number} is malformed")
    return target


def _stat_of(inode: Inode) -> FileStat:
    rdev = (0, 0)
    if stat.S_ISCHR(inode.mode) or stat.S_ISBLK(inode.mode):
        old, new = int.from_bytes(inode.block_map[:4], "little"), int.from_bytes(inode.block_map[4:8], "little")
        rdev = (old >> 8 & 0xFF, old & 0xFF) if old else (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)
    return FileStat(
        inode.number,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.size,
        inode.links,
        inode.blocks,
        rdev,
        inode.atime_ns,
        inode.mtime_ns,
        inode.ctime_ns,
    )
