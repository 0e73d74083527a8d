"""Making things below a folder of this host, and never beside it, whoever chose their names.

Every folder is opened relative to the one above and never through a symbolic link; whatever is made is made relative to
such a descriptor, under a name that is one component. So neither `..`, nor an absolute name, nor a link that the
archive made a moment ago leads anywhere else, and nothing depends on a path that somebody could exchange meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from firkin.core.copy.report import shown
from firkin.errors import FirkinError

__all__ = ["Attributes", "Folders", "new_file", "parts", "place", "staging"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
# Each level holds a descriptor.
_MAX_DEPTH: Final = 256
_STAGING: Final = ".firkin-get-"


class Attributes(NamedTuple):
    """What a file gets in the end. `owner` is `None` where it stays the caller's."""

    mode: int
    mtime_ns: int
    owner: tuple[int, int] | None

    def give(self, file: int) -> None:
        """Set them on an open file or folder: the owner first, whose change takes mode bits away."""
        if self.owner is not None:
            os.chown(file, *self.owner)
        os.chmod(file, self.mode)
        os.utime(file, ns=(self.mtime_ns, self.mtime_ns))


def parts(name: bytes) -> list[bytes]:
    """A name of an archive as components. Raises `FirkinError` for one that leads out of the folder it is for."""
    found = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in found or b"\0" in name:
        raise FirkinError(f"the archive has the name {shown(name)!r}, which leads out of the folder")
    if len(found) > _MAX_DEPTH:
        raise FirkinError(f"the archive has a tree of more than {_MAX_DEPTH} levels at {shown(name)!r}")
    return found


class _Level(NamedTuple):
    name: bytes
    folder: int
    attributes: Attributes | None


class Folders:
    """The folder that an archive is in just now, below `root`, and those above it, all open.

    What is made here gets its attributes when the archive leaves it; folders that were there keep theirs.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: list[_Level] = []

    def at(self, path: list[bytes]) -> int:
        """The descriptor of the folder at `path`; those that are missing are made."""
        same = 0
        for level, part in zip(self._open, path, strict=False):
            if level.name != part:
                break
            same += 1
        self.leave(same)
        for part in path[same:]:
            self.enter(part, None)
        return self._open[-1].folder if self._open else self._root

    def enter(self, name: bytes, attributes: Attributes | None) -> None:
        """Make the folder `name` in the one where we are, if it is not there, and go into it."""
        above = self._open[-1].folder if self._open else self._root
        try:
            os.mkdir(name, 0o700 if attributes else 0o755, dir_fd=above)
        except FileExistsError:
            attributes = None
        self._open.append(_Level(name, _opened(above, name), attributes))

    def leave(self, depth: int = 0) -> None:
        """Go up until `depth` levels below the root are left."""
        while len(self._open) > depth:
            _, folder, attributes = self._open.pop()
            try:
                if attributes is not None:
                    attributes.give(folder)
            finally:
                os.close(folder)

    def find(self, path: list[bytes]) -> tuple[int, bytes]:
        """An own descriptor of the folder that holds `path`, and its last name; nothing is made."""
        here = os.dup(self._root)
        for part in path[:-1]:
            try:
                inner = _opened(here, part)
            finally:
                os.close(here)
            here = inner
        return here, path[-1]

    def close(self) -> None:
        """Close what is open, as it is."""
        while self._open:
            os.close(self._open.pop().folder)


def _opened(above: int, name: bytes) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise FirkinError(
                f"{shown(name)} is no folder (a symbolic link?), nothing is written through it"
            ) from error
        raise


def place(make: Callable[[bytes], None], folder: int, name: bytes) -> None:
    """Let `make` make `name` in `folder`, in place of whatever is there in one step; a folder is never replaced.

    Raises `FirkinError`.
    """
    try:
        make(name)
    except FileExistsError:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise FirkinError(f"{shown(name)} is a folder and can't be replaced by a file") from None
        temporary = b".firkin-" + secrets.token_hex(8).encode()
        make(temporary)
        try:
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise


@contextmanager
def new_file(folder: int, name: bytes, *, ours: bool) -> Iterator[int]:
    """A file to be written, which is `name` in `folder` once the block has ended well; else it never was there.

    `ours`: nobody sees the folder yet, and it is removed after a failure, so the name may be there at once.
    """
    if ours:
        with suppress(FileExistsError):
            file = os.open(name, _FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
            try:
                yield file
            finally:
                os.close(file)
            return
    try:
        # Without a name it goes with us, kill -9 included.
        file = os.open(b".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
        with _named(folder, name) as file:
            yield file
        return
    try:
        yield file
        source = f"/proc/self/fd/{file}"
        place(lambda to: os.link(source, to, dst_dir_fd=folder, follow_symlinks=True), folder, name)
    finally:
        os.close(file)


@contextmanager
def _named(folder: int, name: bytes) -> Iterator[int]:
    """The same on a file system without O_TMPFILE (NFS, an older overlay): by a temporary name."""
    temporary = b".firkin-" + secrets.token_hex(8).encode()
    file = os.open(temporary, _FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        try:
            yield file
        finally:
            os.close(file)
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise FirkinError(f"{shown(name)} is a folder and can't be replaced by a file")
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


@contextmanager
def staging(root: int, name: bytes) -> Iterator[int]:
    """A new folder in `root`, which is called `name` once the block has ended well, and is removed otherwise.

    Its lock is held meanwhile: one without is of a dead process, and the next copy into `root` removes it.
    """
    _reclaim(root)
    temporary, folder = _staged(root)
    try:
        yield folder
        # Fails where something was put there meanwhile, but for an empty folder.
        os.rename(temporary, name, src_dir_fd=root, dst_dir_fd=root)
    except BaseException:
        with suppress(OSError):
            _remove(root, temporary)
        raise
    finally:
        os.close(folder)


def _staged(root: int) -> tuple[str, int]:
    while True:
        temporary = _STAGING + secrets.token_hex(8)
        os.mkdir(temporary, 0o700, dir_fd=root)
        with suppress(OSError):
            folder = os.open(temporary, _FOLDER, dir_fd=root)
            if _locked(folder) and os.fstat(folder).st_nlink:
                return temporary, folder
            # Somebody who reclaims was faster than our lock.
            os.close(folder)


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _reclaim(root: int) -> None:
    with os.scandir(root) as entries:
        old = [entry.name for entry in entries if entry.name.startswith(_STAGING)]
    for name in old:
        # What can't be removed is somebody else's.
        with suppress(OSError):
            folder = os.open(name, _FOLDER, dir_fd=root)
            try:
                if os.fstat(folder).st_uid == os.geteuid() and _locked(folder):
                    _remove(root, name)
            finally:
                os.close(folder)


def _remove(above: int, name: str) -> None:
    """Remove a staged tree, which nobody else may change and whose folders may have any mode."""
    with suppress(OSError):
        os.chmod(name, 0o700, dir_fd=above)
        folder = os.open(name, _FOLDER, dir_fd=above)
        try:
            with os.scandir(folder) as found:
                entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
            for inner, is_folder in entries:
                if is_folder:
                    _remove(folder, inner)
                else:
                    os.unlink(inner, dir_fd=folder)
        finally:
            os.close(folder)
    os.rmdir(name, dir_fd=above)
