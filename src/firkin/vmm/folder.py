"""The folder of a live VM: held by a lock of its owner, removed by whoever finds that the owner is dead."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

from firkin import faults
from firkin.errors import FirkinError, InvalidInputError, StateError
from firkin.types.state import StateDirs
from firkin.vmm.cgroup import Cage, remove_recorded
from firkin.vmm.published import forget_published

__all__ = ["VmFolder", "live", "reclaim"]

_CLAIMED = faults.declare("folder.claimed", "the VM's folder exists and is locked, it is empty")
_REMOVING = faults.declare("folder.removing", "the VM is gone, its folder is still there")
_OWNER = "owner"


class VmFolder:
    """`run/vm/<name>/`, held by this process. A context manager; leaving it removes the folder.

    `cage` is for the processes of the VM: its control groups on the host, which go with the folder.
    """

    def __init__(self, path: Path, fd: int, owner: int) -> None:
        self.path = path
        self.cage = Cage(path)
        self._fd = fd
        self._owner = owner

    @classmethod
    def claim(cls, dirs: StateDirs, name: str) -> Self:
        """Make the folder, having removed those of dead owners. Raises `StateError` where a live VM has the name.

        Raises `InvalidInputError`.
        """
        if not name or "/" in name or name.startswith(".") or len(name) > 64:
            raise InvalidInputError(f"{name!r} can't name a VM", value=name)
        parent = dirs.make("run", "vm")
        with _register(parent):
            _reclaim(parent)
            path = parent / name
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                raise StateError(f"the name {name} is in use", hint="choose another, or stop that container") from None
            owner = os.open(path / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        faults.point(_CLAIMED)
        _forget_in_children()
        _owned.add(owner)
        return cls(path, fd, owner)

    @property
    def name(self) -> str:
        """The last part of its path: the container's id."""
        return self.path.name

    @property
    def inode(self) -> int:
        """A number that no other live folder of the same state has."""
        return os.fstat(self._fd).st_ino

    def listen(self, name: str) -> socket.socket:
        """A listening stream socket at `name` in the folder, however long the folder's path is; an earlier one goes."""
        (self.path / name).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(f"/proc/self/fd/{self._fd}/{name}")
            listener.listen(8)
        except BaseException:
            listener.close()
            raise
        return listener

    def connect(self, name: str) -> socket.socket:
        """A non-blocking connection to the socket at `name`; it is in the listener's queue at once."""
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(f"/proc/self/fd/{self._fd}/{name}")
            client.setblocking(False)
        except BaseException:
            client.close()
            raise
        return client

    def remove(self) -> None:
        """Remove the folder and let go of the lock. Safe to call again; the VM's processes have been waited for."""
        if self._fd < 0:
            return
        faults.point(_REMOVING)
        try:
            self.cage.remove()
            # Nobody may take the half-removed folder for a dead owner's and remove it too.
            with _register(self.path.parent):
                shutil.rmtree(self.path)
        finally:
            os.close(self._fd)
            _owned.discard(self._owner)
            os.close(self._owner)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


# The locks of this process's folders. A child made by os.fork (multiprocessing) must not keep them.
_owned: set[int] = set()


@lru_cache(maxsize=1)
def _forget_in_children() -> None:
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    while _owned:
        os.close(_owned.pop())


def live(dirs: StateDirs) -> list[Path]:
    """The folders of VMs whose owner lives, sorted by name; those of dead owners are removed."""
    parent = dirs.run / "vm"
    if not parent.is_dir():
        return []
    reclaim(dirs)
    return sorted(path for path in parent.iterdir() if path.is_dir())


def reclaim(dirs: StateDirs) -> list[str]:
    """Remove the folders of dead owners and return their names."""
    parent = dirs.run / "vm"
    if not parent.is_dir():
        return []
    with _register(parent):
        return _reclaim(parent)


def _reclaim(parent: Path) -> list[str]:
    removed = []
    for path in parent.iterdir():
        # What still is in its groups is being killed: then the next who looks removes both.
        if path.is_dir() and _is_dead(path) and remove_recorded(path):
            forget_published(path)
            shutil.rmtree(path)
            removed.append(path.name)
    return removed


def _is_dead(path: Path) -> bool:
    try:
        owner = os.open(path / _OWNER, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Its maker died before it had a lock: nobody else can be in between, the register is locked.
        return True
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(owner)
    return True


@contextmanager
def _register(parent: Path) -> Iterator[None]:
    """Hold the lock, on the folder of all VMs itself, under which folders appear and are reclaimed."""
    try:
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FirkinError(f"can't use the state folder {parent}: {error.strerror}", hint="set FIRKIN_HOME") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
