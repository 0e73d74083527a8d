"""Volumes: disk images that outlive containers, each written by one VM at a time and read by many.

A volume is a folder `data/volumes/<name>/`: `disk` (an ext4 image, sparse) and `volume.json`. It appears whole or not
at all. Who uses it holds a `flock` on the folder for as long as it lives: shared to read, exclusive to write or remove.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firkin import faults
from firkin.core.volume_name import check_volume_name, is_volume_name
from firkin.errors import InvalidInputError, NotFoundError, StateError
from firkin.ext4 import make_empty
from firkin.types import Size, StateDirs
from firkin.types.folders import locked

__all__ = ["DEFAULT_SIZE", "Volume", "hold_volume", "make_disk", "remove_volume"]

_WRITTEN = faults.declare("volume.before-publish", "a volume is whole under a temporary name")
_REMOVING = faults.declare("volume.removing", "a volume has lost its name, its files are still there")

DEFAULT_SIZE = Size.gib(16)
_SMALLEST = Size.mib(1)
_MAX_DOCUMENT = 1 << 20


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as it is on disk. `size` is the room in it, in bytes; `created` is in UTC."""

    name: str
    path: Path
    size: Size
    created: datetime
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        name: str = "",
        *,
        size: Size | int | str | None = None,
        labels: Mapping[str, str] | None = None,
        dirs: StateDirs | None = None,
    ) -> Volume:
        """Make a volume of `size` (default: 16 GiB, of which only what is written takes room).

        Without a name it gets a random one. Raises `InvalidInputError` for a bad name or size, `StateError` where the
        name is taken.
        """
        name = check_volume_name(name or secrets.token_hex(16))
        room = DEFAULT_SIZE if size is None else Size.parse(size)
        if room < _SMALLEST:
            raise InvalidInputError(f"a volume of {room} is too small", value=size, hint=f"at least {_SMALLEST}")
        parent = _parent(dirs)
        new = parent / f".new-{secrets.token_hex(8)}"
        with locked(parent):
            _sweep(parent)
            if (parent / name).exists():
                raise StateError(f"there is a volume {name} already", hint="choose another name, or remove it")
            new.mkdir(mode=0o700)
            try:
                make_disk(new / "disk", room)
                document = {"created": datetime.now(UTC).isoformat(), "size": int(room), "labels": dict(labels or {})}
                (new / "volume.json").write_text(json.dumps(document))
                faults.point(_WRITTEN)
                new.rename(parent / name)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
        return cls.get(name, dirs=dirs)

    @classmethod
    def get(cls, name: str, *, dirs: StateDirs | None = None) -> Volume:
        """The volume of that name. Raises `NotFoundError`, `InvalidInputError`. Raises `StateError`."""
        path = _parent(dirs) / check_volume_name(name)
        try:
            with (path / "volume.json").open("rb") as file:
                document = json.loads(file.read(_MAX_DOCUMENT))
            created = datetime.fromisoformat(document["created"])
            return cls(name, path / "disk", Size(document["size"]), created, dict(document["labels"]))
        except FileNotFoundError:
            raise NotFoundError(f"there is no volume {name}", hint=f"firkin volume create {name}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(f"the volume {name} is damaged", hint=f"firkin volume rm {name}") from error

    @classmethod
    def all(cls, *, dirs: StateDirs | None = None) -> list[Volume]:
        """All volumes by name; damaged ones are left out."""
        found = []
        for path in sorted(_parent(dirs).iterdir()):
            if is_volume_name(path.name):
                with suppress(NotFoundError, StateError):
                    found.append(cls.get(path.name, dirs=dirs))
        return found

    @classmethod
    def prune(cls, *, dirs: StateDirs | None = None) -> list[Volume]:
        """Remove every volume that nobody uses; those removed."""
        removed = []
        for volume in cls.all(dirs=dirs):
            with suppress(StateError, NotFoundError):
                volume.remove()
                removed.append(volume)
        return removed

    @property
    def bytes(self) -> Size:
        """What it takes on the host's disk."""
        return Size(self.path.stat().st_blocks * 512)

    @property
    def in_use(self) -> bool:
        """Whether a live container has it."""
        with locked(self.path.parent.parent):
            lock = _lock(self.path.parent, shared=False)
            if lock is not None:
                os.close(lock)
        return lock is None

    def remove(self) -> None:
        """Remove it and all that is in it. Raises `StateError` while a container uses it."""
        _remove(self.path.parent)

    def as_document(self) -> dict[str, Any]:
        """What `firkin volume inspect` prints: plain values."""
        return {
            "name": self.name,
            "path": str(self.path),
            "size": int(self.size),
            "bytes": int(self.bytes),
            "created": self.created.isoformat(),
            "labels": dict(self.labels),
            "in_use": self.in_use,
        }


def remove_volume(name: str, *, dirs: StateDirs | None = None) -> None:
    """Remove a volume and all that is in it, a damaged one too.

    Raises `NotFoundError`, `StateError` while a container uses it.
    """
    _remove(_parent(dirs) / check_volume_name(name))


def _remove(folder: Path) -> None:
    with locked(folder.parent):
        if not folder.is_dir():
            raise NotFoundError(f"there is no volume {folder.name}")
        if (lock := _lock(folder, shared=False)) is None:
            raise StateError(f"the volume {folder.name} is in use", hint="stop the container that has it")
        gone = folder.with_name(f".gone-{secrets.token_hex(8)}")
        try:
            folder.rename(gone)
            faults.point(_REMOVING)
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(lock)


@contextmanager
def hold_volume(name: str, *, read_only: bool, dirs: StateDirs | None = None) -> Iterator[Volume]:
    """The volume, made where there is none, for the length of the block nobody else's to write (`read_only`: to write
    or remove). Raises `StateError` where another container has it.
    """
    parent = _parent(dirs)
    try:
        volume = Volume.get(name, dirs=dirs)
    except NotFoundError:
        with suppress(StateError):
            # Another may have made it at the same moment.
            Volume.create(name, dirs=dirs)
        volume = Volume.get(name, dirs=dirs)
    with locked(parent):
        lock = _lock(volume.path.parent, shared=read_only)
    if lock is None:
        raise StateError(
            f"the volume {name} is in use by another container",
            hint="many may have it read-only (name:/path:ro), or one to write",
        )
    try:
        yield volume
    finally:
        os.close(lock)


def make_disk(path: Path, size: int) -> None:
    """An empty ext4 image, whose root nobody has put anything into."""
    make_empty(path, size, timestamp=int(datetime.now(UTC).timestamp()), lost_found=False)


def _parent(dirs: StateDirs | None) -> Path:
    return (dirs or StateDirs.default()).make("data", "volumes")


def _lock(path: Path, *, shared: bool) -> int | None:
    """A locked descriptor of the folder, or `None` where somebody has it. Not inherited by what is executed."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _sweep(parent: Path) -> None:
    """Take away what a process that was killed left; the register is held, so nobody is at work on it."""
    for path in parent.iterdir():
        if path.name.startswith((".new-", ".gone-")):
            shutil.rmtree(path, ignore_errors=True)
