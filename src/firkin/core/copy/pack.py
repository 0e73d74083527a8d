"""A file or a tree of this host as a tar stream, of constant memory whatever its size.

The tree may change meanwhile. Folders are walked by descriptors, what was opened is what counts, and a file gets
exactly the bytes that its header promised: cut where it grew, filled with zeros where it shrank, and noted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from firkin import faults
from firkin.core.copy.header import END, header, padding, record
from firkin.core.copy.report import CopyReport, Notes, shown
from firkin.errors import FirkinError, InvalidInputError

__all__ = ["pack_content", "pack_tree"]

_PACKING = faults.declare("copy.packing", "a file of the host is half sent to the guest")

# What is gathered before it is handed on, and read of a large file at a time.
_GATHERED: Final = 256 * 1024
_PIECE: Final = 1 << 20
_MAX_LINKS: Final = 1 << 18
_MAX_REGIONS: Final = 1 << 16
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ZEROS: Final = bytes(_PIECE)
_VANISHED: Final = "vanished before it was read"


def pack_tree(source: str, name: bytes | None, put: Callable[[bytes], None], *, follow: bool) -> CopyReport:
    """Hand `source` as `name` to `put`, piece by piece; without a name, what is in it.

    With `follow` a `source` that is a symbolic link is what it leads to. Raises `InvalidInputError` where it is not
    there, `FirkinError` for what can't be read.
    """
    packer = _Packer(put)
    try:
        found = Path(source).stat(follow_symlinks=follow)
        if stat.S_ISDIR(found.st_mode):
            packer.tree(os.open(source, _FOLDER & ~(os.O_NOFOLLOW if follow else 0)), name)
        else:
            target = os.path.realpath(source) if follow else source
            packer.leaf(None, target, name or b"", found)
    except OSError as error:
        raise _unreadable(os.fsencode(source), error) from error
    return packer.finish()


def pack_content(content: bytes | BinaryIO, name: bytes, mode: int, put: Callable[[bytes], None]) -> CopyReport:
    """Hand one file with `content` (from where a seekable file stands to its end) to `put`.

    Raises `InvalidInputError`.
    """
    packer = _Packer(put)
    now = packer.now(mode)
    if isinstance(content, bytes):
        packer.whole(name, now, len(content), [content])
        return packer.finish()
    try:
        start = content.tell()
        size = content.seek(0, os.SEEK_END) - start
        content.seek(start)
    except (OSError, AttributeError) as error:
        raise InvalidInputError(
            "a file to copy from must be seekable", value=content, hint="read it first, or send a tar by put_archive"
        ) from error
    packer.whole(name, now, size, iter(lambda: content.read(_PIECE), b""))
    return packer.finish()


class _Packer:
    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self._gathered = bytearray()
        self._notes = Notes()
        self._links: dict[tuple[int, int], bytes] = {}

    def finish(self) -> CopyReport:
        self._add(END)
        self._flush()
        return self._notes.report()

    @staticmethod
    def now(mode: int) -> os.stat_result:
        """Attributes of a file that is made now."""
        import time

        seconds = time.time()
        return os.stat_result(
            (mode, 0, 0, 1, 0, 0, 0, seconds, seconds, seconds),
            {"st_mtime_ns": time.time_ns(), "st_blocks": 0},
        )

    # ---- folders

    def tree(self, folder: int, name: bytes | None) -> None:
        """The folder behind the descriptor, which is closed, and all below."""
        if name is not None:
            self._header(name + b"/", b"5", os.fstat(folder))
        # Open folders, from the top to where we are: descriptor, what is left of it, its path.
        above = [(folder, _listed(folder), b"" if name is None else name + b"/")]
        try:
            while above:
                folder, entries, path = above[-1]
                entry = next(entries, None)
                if entry is None:
                    above.pop()
                    os.close(folder)
                elif (inner := self._entry(folder, entry, path)) is not None:
                    above.append((inner, _listed(inner), path + os.fsencode(entry.name) + b"/"))
        finally:
            for folder, *_ in above:
                os.close(folder)

    def _entry(self, folder: int, entry: os.DirEntry[str], above: bytes) -> int | None:
        """Send one entry; a folder's header only, and its descriptor is returned."""
        path = above + os.fsencode(entry.name)
        try:
            found = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                self.leaf(folder, entry.name, path, found)
                return None
            inner = os.open(entry.name, _FOLDER, dir_fd=folder)
        except FileNotFoundError:
            self._notes.note(path, _VANISHED)
            return None
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                self._notes.note(path, "changed its kind before it was read")
                return None
            raise _unreadable(path, error) from error
        self._header(path + b"/", b"5", os.fstat(inner))
        return inner

    # ---- what is no folder

    def leaf(self, folder: int | None, name: str, path: bytes, found: os.stat_result) -> None:
        kind, key = stat.S_IFMT(found.st_mode), (found.st_dev, found.st_ino)
        if kind == stat.S_IFSOCK:
            self._notes.note(path, "is a socket and was left out")
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            raise InvalidInputError(f"{shown(path)} is a device node", value=path, hint="leave it out")
        elif found.st_nlink > 1 and key in self._links:
            self._header(path, b"1", found, link=self._links[key])
        else:
            if kind == stat.S_IFREG:
                self._file(folder, name, path)
            elif kind == stat.S_IFLNK:
                self._header(path, b"2", found, link=os.fsencode(os.readlink(name, dir_fd=folder)))
            else:
                self._header(path, b"6", found)
            if found.st_nlink > 1 and len(self._links) < _MAX_LINKS:
                self._links[key] = path

    def _file(self, folder: int | None, name: str, path: bytes) -> None:
        file = os.open(name, _FILE, dir_fd=folder)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                self._notes.note(path, "changed its kind before it was read")
                return
            size = found.st_size
            regions = _regions(file, size) if found.st_blocks * 512 < size else None
            if regions is None:
                self.whole(path, found, size, _pieces(file, 0, size))
            else:
                self._sparse(path, found, file, regions)
            after = os.fstat(file)
            if (after.st_size, after.st_mtime_ns) != (size, found.st_mtime_ns):
                self._notes.note(path, "changed while it was read")
        finally:
            os.close(file)

    def whole(self, path: bytes, found: os.stat_result, size: int, pieces: list[bytes] | Iterator[bytes]) -> None:
        """A regular file with `size` bytes of `pieces`."""
        self._header(path, b"0", found, size=size)
        self._content(path, size, pieces)
        self._add(padding(size))

    def _sparse(self, path: bytes, found: os.stat_result, file: int, regions: list[tuple[int, int]]) -> None:
        """GNU's sparse format 1.0: the map, then the regions (GNU tar manual, "Storing Sparse Files")."""
        lines = [len(regions) + 1, *(number for region in regions for number in region), found.st_size, 0]
        text = b"".join(b"%d\n" % line for line in lines)
        text += padding(len(text))
        stored = sum(length for _, length in regions)
        about = {b"major": b"1", b"minor": b"0", b"name": path, b"realsize": b"%d" % found.st_size}
        records = [record(b"GNU.sparse." + key, value) for key, value in about.items()]
        stand_in = b"GNUSparseFile.0/" + path.rpartition(b"/")[2][:80]
        self._header(stand_in, b"0", found, size=len(text) + stored, more=records)
        self._add(text)
        for offset, length in regions:
            self._content(path, length, _pieces(file, offset, length))
        self._add(padding(stored))

    def _content(self, path: bytes, size: int, pieces: list[bytes] | Iterator[bytes]) -> None:
        left = size
        for piece in pieces:
            self._add(piece[:left])
            left -= min(len(piece), left)
            faults.point(_PACKING)
            if not left:
                break
        if left:
            self._notes.note(path, "became shorter while it was read, its end is zeros")
        self._notes.bytes += size
        while left:
            self._add(_ZEROS[:left])
            left -= min(left, len(_ZEROS))

    # ---- output

    def _header(
        self,
        path: bytes,
        kind: bytes,
        found: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        more: list[bytes] | None = None,
    ) -> None:
        self._notes.entries += 1
        self._add(header(path, kind, found, size=size, link=link, more=more or ()))

    def _add(self, data: bytes) -> None:
        if len(data) >= _GATHERED:
            self._flush()
            self._put(data)
            return
        self._gathered += data
        if len(self._gathered) >= _GATHERED:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            self._put(bytes(self._gathered))
            self._gathered.clear()


def _listed(folder: int) -> Iterator[os.DirEntry[str]]:
    try:
        return os.scandir(folder)
    except OSError:
        os.close(folder)
        raise


def _pieces(file: int, offset: int, length: int) -> Iterator[bytes]:
    end = offset + length
    while offset < end and (piece := os.pread(file, min(_PIECE, end - offset), offset)):
        offset += len(piece)
        yield piece


def _regions(file: int, size: int) -> list[tuple[int, int]] | None:
    """Where `file` has data (lseek(2), SEEK_DATA): offset and length; `None` where that is not to be had."""
    found: list[tuple[int, int]] = []
    end = 0
    try:
        while end < size:
            try:
                start = os.lseek(file, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            end = min(os.lseek(file, start, os.SEEK_HOLE), size)
            if end > start:
                found.append((start, end - start))
            if len(found) > _MAX_REGIONS:
                return None
    except OSError:
        return None
    return found


def _unreadable(path: bytes, error: OSError) -> FirkinError:
    if isinstance(error, FileNotFoundError):
        return InvalidInputError(f"there is no {shown(path)} to copy", value=path)
    if error.errno == errno.EMFILE:
        return FirkinError(f"{shown(path)} is too deep to be copied", hint="raise the limit of open files")
    return FirkinError(f"can't read {shown(path)}: {error.strerror}")
