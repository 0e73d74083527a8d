"""Where Firkin's state lives: data that matters, caches that can be rebuilt, folders that live with a process."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass

__all__ = ["StateDirs"]


@dataclass(frozen=True, slots=True)
class StateDirs:
    """The three roots of Firkin's state. Folders are made on demand, with mode 0700.

    `data`: images, volumes, snapshots. `cache`: boot assets, root filesystem images, base VMs. `run`: one folder a
    live VM.
    """

    data: Path
    cache: Path
    run: Path

    @classmethod
    def under(cls, home: Path) -> StateDirs:
        """All three below `home`, as `FIRKIN_HOME` does it."""
        home = home.absolute()
        return cls(home / "data", home / "cache", home / "run")

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> StateDirs:
        """`FIRKIN_HOME` if set; else the XDG folders of a user, or those of the system for root.

        Raises `InvalidInputError` where the runtime folder belongs to somebody else.
        """
        if home := environ.get("FIRKIN_HOME"):
            return cls.under(Path(home))
        uid = os.getuid()
        if uid == 0:
            return cls(Path("/var/lib/firkin"), Path("/var/cache/firkin"), Path("/run/firkin"))
        user_home = Path(environ.get("HOME", "~")).expanduser()
        data = Path(environ.get("XDG_DATA_HOME") or user_home / ".local/share") / "firkin"
        cache = Path(environ.get("XDG_CACHE_HOME") or user_home / ".cache") / "firkin"
        runtime = environ.get("XDG_RUNTIME_DIR")
        run = Path(runtime) / "firkin" if runtime else _own_folder(Path(f"/tmp/firkin-{uid}"))
        return cls(data, cache, run)

    def make(self, *parts: str | Path) -> Path:
        """Join `parts` (the first is `data`, `cache` or `run`) and make that folder, mode 0700."""
        first, *rest = parts
        root = {"data": self.data, "cache": self.cache, "run": self.run}[str(first)]
        path = Path(root, *rest)
        if not path.is_dir():
            # `mode` is that of the last folder only: its parents are made one by one.
            root.parent.mkdir(parents=True, exist_ok=True)
            for folder in reversed([path, *path.parents[: len(path.relative_to(root).parts)]]):
                folder.mkdir(exist_ok=True, mode=0o700)
        return path


def _own_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InvalidInputError(
            f"{path} is not a private folder of this user", value=path, hint="set XDG_RUNTIME_DIR or FIRKIN_HOME"
        )
    return path
