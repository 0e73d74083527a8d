"""A guest's archive on this host: into a folder that it can't leave, within limits, all or nothing where it is new.

The guest is hostile. Its archive names nothing but what is below one top entry, whose name the host chose; what it may
not have (device nodes, set-id bits, hard links to what it did not bring) is refused or dropped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from firkin import faults
from firkin.core.copy.below import Attributes, Folders, new_file, parts, place, staging
from firkin.core.copy.report import CopyReport, Notes, shown
from firkin.errors import FirkinError, ImageError, InvalidInputError
from firkin.ext4 import tar

__all__ = ["CopyBounds", "HostPlace", "unpack", "unpack_content"]

_UNPACKING = faults.declare("copy.unpacking", "a file of the guest is half written on the host")
_UNPACKED = faults.declare("copy.unpacked", "the guest's tree is whole but has not got its name yet")

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE: Final = 1 << 20
# Beyond it a time is not one that a file system keeps; the kernel cuts it to what this one does.
_LAST_SECOND: Final = 1 << 40
_TRAILER: Final = 1 << 20


class CopyBounds(NamedTuple):
    """The most bytes (of the archive, and of the files' sizes) and entries that are taken."""

    bytes: int
    entries: int


class HostPlace(NamedTuple):
    """Where a copy goes: `name` in the existing folder `folder`; without a name, the archive's top folder is `folder`.

    `must_be_folder`: the caller wrote a `/` behind it.
    """

    folder: Path
    name: bytes | None
    must_be_folder: bool = False


def unpack(source: tar.Readable, at: HostPlace, bounds: CopyBounds, *, preserve_owner: bool) -> CopyReport:
    """Unpack the archive of one file or tree at `at`, and read it to its end.

    Owners are the archive's with `preserve_owner` as root, else the caller's. Raises `FirkinError`.
    """
    with _reading(source, bounds) as archive, _opened(at.folder) as root:
        work = _Unpacker(archive, root, preserve_owner and os.geteuid() == 0)
        try:
            work.top(at)
        except OSError as error:
            raise FirkinError(f"can't copy to {at.folder}: {error.strerror}") from error
        return work.notes.report()


def unpack_content(source: tar.Readable, file: BinaryIO, bounds: CopyBounds) -> CopyReport:
    """Write the content of the archive's one regular file to `file`. Raises `InvalidInputError`."""
    with _reading(source, bounds) as archive:
        notes = Notes(entries=1)
        member = archive.first()
        if member.kind != tar.REGULAR:
            raise InvalidInputError(f"{shown(member.name)} is not a regular file", hint="give a path as destination")
        written = 0
        for offset, piece in archive.content(member):
            while gap := min(offset - written, _PIECE):
                written += file.write(bytes(gap))
            written += file.write(piece)
        while gap := min(member.size - written, _PIECE):
            written += file.write(bytes(gap))
        notes.bytes = member.size
        archive.nothing_more()
        return notes.report()


class _Archive:
    """The members of the stream, all below one top name, which is taken off."""

    def __init__(self, source: tar.Readable, bounds: CopyBounds) -> None:
        limits = tar.Limits(max_bytes=bounds.bytes, max_inodes=bounds.entries, max_seconds=float("inf"))
        self._stream = tar.LayerStream(source, tar.Budget(limits, what="the files to copy"))
        self._bounds = bounds
        self._members = tar.members(self._stream, limits)
        self._top: bytes | None = None
        self._entries = 0
        self._sizes = 0

    def first(self) -> tar.Member:
        """The top entry."""
        member = next(self._members, None)
        if member is None:
            raise FirkinError("the guest sent an empty archive")
        self._count(member)
        self._top = member.name.rstrip(b"/")
        return member

    def rest(self) -> Iterator[tuple[list[bytes], tar.Member]]:
        """The other entries with their paths below the top one."""
        for member in self._members:
            self._count(member)
            yield self.below(member.name), member

    def below(self, name: bytes) -> list[bytes]:
        """A name of the archive as components below the top entry."""
        top, slash, inner = name.partition(b"/")
        path = parts(inner)
        if top != self._top or not slash or not path:
            raise FirkinError(f"the archive has {shown(name)!r}, which is not below {shown(self._top or b'')!r}")
        return path

    def content(self, member: tar.Member) -> Iterator[tuple[int, memoryview]]:
        """The pieces of a file: offset and bytes."""
        stream = self._stream
        for offset, length in member.sparse if member.sparse is not None else ((0, member.size),):
            for done in range(0, length, _PIECE):
                step = min(length - done, _PIECE)
                at = stream.need(step)
                yield offset + done, stream.view[at : at + step]

    def nothing_more(self) -> None:
        """Read the rest of the stream, where nothing but filling may be."""
        if next(self._members, None) is not None:
            raise FirkinError("the guest sent more than was asked for")
        self.drain()

    def drain(self) -> None:
        """Read to the stream's end; an archive without its end mark is a part of one."""
        left = self._stream.want(_TRAILER)
        if left == _TRAILER:
            raise FirkinError("the guest sends on behind its archive's end")
        if not left:
            raise FirkinError("the guest's archive ends without its end mark")

    def _count(self, member: tar.Member) -> None:
        self._entries += 1
        self._sizes += member.size
        if self._entries > self._bounds.entries:
            raise FirkinError(f"there are more than {self._bounds.entries} files to copy", hint="raise max_entries")
        if self._sizes > self._bounds.bytes:
            raise FirkinError(f"the files to copy hold more than {self._bounds.bytes} bytes", hint="raise limit")


class _Unpacker:
    def __init__(self, archive: _Archive, root: int, preserve_owner: bool) -> None:
        self._archive = archive
        self._root = root
        self._preserve_owner = preserve_owner
        self.notes = Notes()
        self._ours = False
        # Inodes of files that this copy has made in a folder that was there before.
        self._made: set[int] = set()

    def top(self, at: HostPlace) -> None:
        """The top entry, and what is below it."""
        member = self._archive.first()
        is_folder = member.kind == tar.DIRECTORY
        if at.name is None or (is_folder and _is_folder(self._root, at.name)):
            if not is_folder:
                raise InvalidInputError(f"{shown(member.name)} is not a folder")
            folder = os.open(at.name or b".", _FOLDER, dir_fd=self._root)
            try:
                self._tree(folder)
            finally:
                os.close(folder)
        elif is_folder:
            if _exists(self._root, at.name):
                raise InvalidInputError(f"a folder can't replace the file {at.folder / os.fsdecode(at.name)}")
            self._new_tree(at.name, self._attributes(member))
        elif at.must_be_folder:
            missing = at.folder / os.fsdecode(at.name)
            raise InvalidInputError(f"there is no folder {missing}", value=missing, hint="make it first")
        else:
            self._leaf(self._root, at.name, member, Folders(self._root))
            self._archive.nothing_more()

    def _new_tree(self, name: bytes, attributes: Attributes) -> None:
        self._ours = True
        with staging(self._root, name) as folder:
            self._tree(folder)
            attributes.give(folder)
            faults.point(_UNPACKED)

    def _tree(self, root: int) -> None:
        self.notes.entries += 1
        folders = Folders(root)
        try:
            for path, member in self._archive.rest():
                above = folders.at(path[:-1])
                if member.kind == tar.DIRECTORY:
                    self.notes.entries += 1
                    folders.enter(path[-1], self._attributes(member))
                else:
                    self._leaf(above, path[-1], member, folders)
            folders.leave()
            self._archive.drain()
        finally:
            folders.close()

    def _leaf(self, folder: int, name: bytes, member: tar.Member, folders: Folders) -> None:
        self.notes.entries += 1
        attributes = self._attributes(member)
        if member.kind == tar.REGULAR:
            self._file(folder, name, member, attributes)
        elif member.kind == tar.HARDLINK:
            self._link(folder, name, member, folders)
        elif member.kind == tar.SYMLINK:
            if not member.link or b"\0" in member.link:
                raise FirkinError(f"the symbolic link {shown(member.name)} leads nowhere")
            place(lambda to: os.symlink(member.link, to, dir_fd=folder), folder, name)
            self._finish(folder, name, attributes)
        elif member.kind == tar.FIFO:
            place(lambda to: os.mkfifo(to, attributes.mode, dir_fd=folder), folder, name)
            self._finish(folder, name, attributes)
        else:
            raise FirkinError(f"{shown(member.name)} is a device node, which is not made on the host")

    def _file(self, folder: int, name: bytes, member: tar.Member, attributes: Attributes) -> None:
        with new_file(folder, name, ours=self._ours) as file:
            for offset, piece in self._archive.content(member):
                faults.point(_UNPACKING)
                _write(file, piece, offset)
            if member.sparse is not None:
                os.ftruncate(file, member.size)
            attributes.give(file)
            if not self._ours:
                self._made.add(os.fstat(file).st_ino)
        self.notes.bytes += member.size

    def _link(self, folder: int, name: bytes, member: tar.Member, folders: Folders) -> None:
        place_of, target = folders.find(self._archive.below(member.link))
        try:
            found = os.stat(target, dir_fd=place_of, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode) or not (self._ours or found.st_ino in self._made):
                raise FirkinError(f"{shown(member.name)} links to {shown(member.link)}, which is not in the archive")
            place(
                lambda to: os.link(target, to, src_dir_fd=place_of, dst_dir_fd=folder, follow_symlinks=False),
                folder,
                name,
            )
        finally:
            os.close(place_of)

    def _finish(self, folder: int, name: bytes, attributes: Attributes) -> None:
        if attributes.owner is not None:
            os.chown(name, *attributes.owner, dir_fd=folder, follow_symlinks=False)
        os.utime(name, ns=(attributes.mtime_ns, attributes.mtime_ns), dir_fd=folder, follow_symlinks=False)
        if not self._ours:
            self._made.add(os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino)

    def _attributes(self, member: tar.Member) -> Attributes:
        """Set-id bits would give the guest's program the host's rights."""
        seconds, nanoseconds = member.mtime
        seconds = max(-_LAST_SECOND, min(seconds, _LAST_SECOND))
        mode = member.mode & (0o1777 if member.kind == tar.DIRECTORY else 0o777)
        owner = (member.uid, member.gid) if self._preserve_owner else None
        return Attributes(mode, seconds * 1_000_000_000 + nanoseconds, owner)


@contextmanager
def _reading(source: tar.Readable, bounds: CopyBounds) -> Iterator[_Archive]:
    try:
        yield _Archive(source, bounds)
    except ImageError as error:
        hint = "raise limit" if "more than" in error.message else None
        raise FirkinError(f"the guest's archive is not to be used: {error.message}", hint=hint) from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        folder = os.open(path, _FOLDER & ~os.O_NOFOLLOW)
    except OSError as error:
        raise InvalidInputError(f"can't copy into {path}: {error.strerror}", value=path) from error
    try:
        yield folder
    finally:
        os.close(folder)


def _write(file: int, piece: memoryview, offset: int) -> None:
    while piece:
        done = os.pwrite(file, piece, offset)
        piece, offset = piece[done:], offset + done


def _exists(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_folder(folder: int, name: bytes) -> bool:
    return _exists(folder, name) and stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
