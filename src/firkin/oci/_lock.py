"""Advisory locks on files (`flock(2)`): between processes, and gone with the process that held them."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from firkin.errors import FirkinTimeoutError

__all__ = ["FileLock", "lock_file"]

_FIRST_WAIT = 0.002
_LONGEST_WAIT = 0.05


class FileLock:
    """A held lock on the file that `path` names; a context manager. `descriptor` stays open as long as the lock."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def release(self) -> None:
        """Let go. A second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def to_shared(self) -> None:
        """Turn an exclusive lock into a shared one."""
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_file(
    path: Path, *, shared: bool = False, create: bool = True, timeout: float | None = None
) -> FileLock | None:
    """Lock the file at `path`, waiting up to `timeout` seconds (None: not at all, answer None where another holds it).

    The answer is None too where the file is absent and `create` is false. The file may be renamed or unlinked by who
    held it before: the lock counts only on the file that bears the name once it is held, so a holder can publish or
    remove its own lock file. Raises `FirkinTimeoutError` when the wait ends.
    """
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    # A published file is read-only, and flock needs no right to write.
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_RDWR | os.O_CREAT if create else os.O_RDONLY)
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_WAIT
    while True:
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            os.close(descriptor)
            if deadline is None:
                return None
            if time.monotonic() >= deadline:
                raise FirkinTimeoutError(
                    f"{path.name} is still in use by another process after {timeout:g} s"
                ) from None
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_WAIT)
            continue
        except BaseException:
            os.close(descriptor)
            raise
        if _bears_name(descriptor, path):
            return FileLock(path, descriptor)
        os.close(descriptor)


def _bears_name(descriptor: int, path: Path) -> bool:
    held = os.fstat(descriptor)
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
