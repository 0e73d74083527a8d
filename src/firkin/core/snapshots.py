"""The snapshots of a state: folders below `data/snapshots/`, each published whole under its name, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from firkin import faults
from firkin.errors import InvalidInputError, NotFoundError, StateError
from firkin.types import ContainerId, StateDirs
from firkin.types.folders import flush, locked
from firkin.vmm.saved import read_manifest

__all__ = ["SnapshotInfo", "Snapshots"]

_CREATED = faults.declare("snapshot.created", "a snapshot's folder exists under a temporary name, it is empty")
_WHOLE = faults.declare("snapshot.before-publish", "a snapshot is whole under its temporary name")
_PUBLISHED = faults.declare("snapshot.published", "a snapshot has its name, its folder is not flushed")
_REMOVING = faults.declare("snapshot.removing", "a snapshot has lost its name, its files are still there")
# Such names belong to who holds a lock on the folder; those of the dead are removed.
_NEW, _GONE = ".new-", ".gone-"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What a snapshot says of itself. `bytes` is what its files take on the disk, those that others share included."""

    name: str
    image: str
    command: tuple[str, ...]
    created: str
    cpus: int
    memory: int
    bytes: int
    needs: dict[str, Any]
    report: dict[str, Any]

    def as_document(self) -> dict[str, Any]:
        """For `--format json`."""
        return {**asdict(self), "command": list(self.command)}


class Snapshots:
    """Below `dirs`: made, listed, found and removed, by any number of processes at a time."""

    def __init__(self, dirs: StateDirs) -> None:
        self._dirs = dirs
        self.root = dirs.data / "snapshots"

    def path(self, name: str) -> Path:
        """Where the snapshot is, or would be. Raises `InvalidInputError` for what can't name one."""
        return self.root / _checked(name)

    def check_free(self, name: str) -> None:
        """Raise `StateError` where there is a snapshot of that name."""
        if self.path(name).exists():
            raise StateError(f"there is a snapshot {name} already", hint=f"firkin snapshot rm {name}")

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """An empty folder that gets `name` when the block ends, and goes where it fails.

        Raises `StateError` where the name is taken, also at the end.
        """
        self.check_free(name)
        with self.scratch(name) as folder:
            yield folder
            faults.point(_WHOLE)
            with self._register():
                self.check_free(name)
                folder.rename(self.path(name))
            faults.point(_PUBLISHED)
            flush(self.root)

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """An empty folder that goes with the block, or with this process."""
        with self._register():
            self._sweep()
            folder = self.root / f"{_NEW}{_checked(name)}-{os.urandom(4).hex()}"
            folder.mkdir(mode=0o700)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            faults.point(_CREATED)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def remove(self, name: str) -> None:
        """Remove it; clones of it run on. Raises `NotFoundError`."""
        path = self.path(name)
        with self._register():
            self._sweep()
            gone = self.root / f"{_GONE}{name}-{os.urandom(4).hex()}"
            try:
                path.rename(gone)
            except FileNotFoundError as error:
                raise NotFoundError(f"there is no snapshot {name}", hint="`firkin snapshot ls` lists them") from error
            faults.point(_REMOVING)
            shutil.rmtree(gone)

    def info(self, name: str) -> SnapshotInfo:
        """Raises `NotFoundError`, and `StateError` where it can't be read."""
        path = self.path(name)
        try:
            manifest = read_manifest(path)
            document, needs = manifest["document"], manifest["needs"]
            return SnapshotInfo(
                name=name,
                image=str(document["image"]),
                command=tuple(map(str, document["spec"]["process"]["args"])),
                created=str(manifest["created"]),
                cpus=int(needs["cpus"]),
                memory=int(needs["memory"]),
                bytes=sum(file.stat().st_blocks * 512 for file in path.iterdir()),
                needs=dict(needs),
                report=dict(manifest["report"]),
            )
        except FileNotFoundError as error:
            if path.exists():
                raise StateError(f"snapshot {name} is not whole", hint=f"firkin snapshot rm {name}") from error
            raise NotFoundError(f"there is no snapshot {name}", hint="`firkin snapshot ls` lists them") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(f"snapshot {name} can't be read: {error}", hint=f"firkin snapshot rm {name}") from error

    def __iter__(self) -> Iterator[SnapshotInfo]:
        """Those that can be read, sorted by name; what dead processes left is removed."""
        if not self.root.is_dir():
            return
        with self._register():
            self._sweep()
        for path in sorted(self.root.iterdir()):
            if not path.name.startswith("."):
                with contextlib.suppress(StateError):
                    yield self.info(path.name)

    def _sweep(self) -> None:
        for path in self.root.iterdir():
            if not path.name.startswith((_NEW, _GONE)):
                continue
            with contextlib.suppress(OSError):
                folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
                finally:
                    os.close(folder)

    def _register(self) -> AbstractContextManager[None]:
        """The lock under which names appear and go."""
        self._dirs.make("data", "snapshots")
        return locked(self.root)


def _checked(name: str) -> ContainerId:
    """A snapshot is named as a container is; a dot in front is for folders that are no snapshots."""
    checked = ContainerId(name)
    if checked.startswith("."):
        raise InvalidInputError(f"{name!r} can't name a snapshot", value=name, hint="begin with a letter or digit")
    return checked
