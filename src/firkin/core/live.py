"""The containers that live on this host, whoever owns them."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from firkin.errors import NotFoundError
from firkin.frozen import dataclass
from firkin.types import StateDirs
from firkin.vmm.folder import live

__all__ = ["LiveContainer", "find_live", "list_live", "publish"]

_RECORD = "container.json"
_LARGEST_RECORD = 1 << 20


@dataclass(frozen=True, slots=True)
class LiveContainer:
    """What the owner of a container has published about it. `created` is ISO 8601, UTC; `pid` the owner's."""

    id: str
    image: str
    command: tuple[str, ...]
    created: str
    pid: int
    cpus: float
    memory: int
    folder: Path

    def as_document(self) -> dict[str, Any]:
        """For `--format json`."""
        return {**asdict(self), "folder": str(self.folder), "command": list(self.command)}


def publish(folder: Path, record: dict[str, Any]) -> None:
    """Write the owner's record beside its lock, in one step."""
    temporary = folder / f".{_RECORD}"
    temporary.write_text(json.dumps(record))
    temporary.replace(folder / _RECORD)


def list_live(dirs: StateDirs) -> list[LiveContainer]:
    """All live containers of this state, the oldest first. One that is still starting has no record yet and is left
    out."""
    found = [container for folder in live(dirs) if (container := _read(folder)) is not None]
    return sorted(found, key=lambda container: datetime.fromisoformat(container.created))


def find_live(dirs: StateDirs, name: str) -> LiveContainer:
    """The live container called `name`, or whose name alone begins so. Raises `NotFoundError`."""
    everyone = list_live(dirs)
    exact = [container for container in everyone if container.id == name]
    matching = exact or [container for container in everyone if name and container.id.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise NotFoundError(f"{name!r} begins the names of {len(matching)} containers", hint="give more of it")
    raise NotFoundError(f"no container {name!r} is alive", hint="`firkin ps` lists them")


def _read(folder: Path) -> LiveContainer | None:
    try:
        with (folder / _RECORD).open("rb") as file:
            record = json.loads(file.read(_LARGEST_RECORD))
        return LiveContainer(
            id=folder.name,
            image=str(record["image"]),
            command=tuple(map(str, record["command"])),
            created=str(record["created"]),
            pid=int(record["owner_pid"]),
            cpus=float(record["cpus"]),
            memory=int(record["memory"]),
            folder=folder,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
