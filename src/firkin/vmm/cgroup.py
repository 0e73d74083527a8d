"""Control groups of the host: where this process may make some, of whichever version, and those of one VM.

A controller is taken where it is mounted: version 1 (`cgroup-v1/`), version 2 (`cgroup-v2.rst`), or some of each. In
version 1 a VM's group is made below this process's own, so that bounds around us hold for it too. In version 2 a group
with processes can't have limited ones below it: there it is made below the nearest ancestor that hands controllers on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from firkin import faults
from firkin.errors import FirkinError

__all__ = ["CONTROLLERS", "Bounds", "Cage", "Place", "find_places", "remove_recorded"]

_log = logging.getLogger("firkin.vmm.cgroup")
_MADE = faults.declare("cgroup.made", "the VM's control groups exist, nothing is in them")

CONTROLLERS = ("memory", "cpu", "pids")
_PERIOD_US = 100_000
_RECORD = "cgroups"
_PREFIX = "firkin-"
_MAX_RECORD = 16 << 10
# What was killed with its owner leaves its group within milliseconds.
_EMPTY_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of all processes of a VM together: bytes of memory, processors, tasks."""

    memory: int
    cpus: int
    tasks: int

    def files(self, version: int, controller: str) -> tuple[tuple[str, str], ...]:
        """What to write where, for one controller."""
        quota = str(self.cpus * _PERIOD_US)
        return {
            (1, "memory"): (("memory.limit_in_bytes", str(self.memory)),),
            (2, "memory"): (("memory.max", str(self.memory)),),
            (1, "cpu"): (("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", quota)),
            (2, "cpu"): (("cpu.max", f"{quota} {_PERIOD_US}"),),
        }.get((version, controller), (("pids.max", str(self.tasks)),))


@dataclass(frozen=True, slots=True)
class Place:
    """A group in which this process may make others, and which of `CONTROLLERS` bound them there."""

    version: int
    folder: Path
    controllers: tuple[str, ...]


def find_places(proc: Path = Path("/proc/self")) -> tuple[Place, ...]:
    """Where groups can be made, each controller at most once; empty where this host permits none."""
    try:
        mounts = list(_mounts((proc / "mountinfo").read_text()))
        lines = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
    except OSError:
        return ()
    places: list[Place] = []
    for _, names, own in lines:
        given = set(names.split(",")) if names else set()
        here = tuple(name for name in CONTROLLERS if name in given)
        for kind, root, point, options in mounts:
            if not names and kind == "cgroup2" and (folder := _below(own, root, point)):
                places += _handed_on(Path(folder), Path(point))
            elif here and kind == "cgroup" and given <= options and (folder := _below(own, root, point)):
                places += [Place(1, Path(folder), here)] if _may_make(folder, "tasks") else []
            else:
                continue
            break
    return tuple(places)


def _mounts(text: str) -> Iterator[tuple[str, str, str, set[str]]]:
    """Type, root, mount point and options of each (proc_pid_mountinfo(5))."""
    for line in text.splitlines():
        if " - cgroup" not in line:
            continue
        left, _, right = line.partition(" - ")
        words, kind = left.split(" "), right.split(" ")
        if kind[0] in ("cgroup", "cgroup2"):
            yield kind[0], words[3], words[4].replace("\\040", " "), set(kind[-1].split(","))


def _below(own: str, root: str, point: str) -> str:
    """Where the group `own` is seen on a mount of `root` at `point`; empty where it is not."""
    root = root.rstrip("/")
    inside = own == root or own.startswith(f"{root}/")
    return (point + own.removeprefix(root)).rstrip("/") if inside and ".." not in own.split("/") else ""


def _handed_on(own: Path, top: Path) -> list[Place]:
    """The nearest group above `own` that we may use and that limits what is below it. The own one has processes."""
    for folder in own.parents:
        if not folder.is_relative_to(top):
            break
        try:
            handed = (folder / "cgroup.subtree_control").read_text().split()
        except OSError:
            break
        if here := tuple(name for name in CONTROLLERS if name in handed):
            # Moving a process takes the right to the common ancestor, which is this one.
            return [Place(2, folder, here)] if _may_make(folder, "cgroup.procs") else []
    return []


def _may_make(folder: str | Path, entry: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and os.access(f"{folder}/{entry}", os.W_OK)


class Cage:
    """The control groups of one VM: made at the first use, gone with `remove`. Does nothing where there is no place.

    Which they are is written into the VM's folder first, so that whoever finds the owner dead can remove them.
    """

    def __init__(self, folder: Path, places: Sequence[Place] | None = None) -> None:
        self._folder = folder
        self._places = places
        self._made: list[tuple[Place, Path]] | None = None

    @property
    def groups(self) -> list[Path]:
        """The groups that were made."""
        return [group for _, group in self._made or ()]

    def bound(self, bounds: Bounds) -> None:
        """Set the bounds; one that the kernel refuses is left out."""
        for place, group in self._make():
            for controller in place.controllers:
                for name, value in bounds.files(place.version, controller):
                    try:
                        (group / name).write_text(value)
                    except OSError as error:
                        _log.debug("no bound %s=%s in %s: %s", name, value, group, error)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Within the block this thread, and what it starts, is in the groups of version 1.

        A thread that moves itself waits for nobody; moving another process waits for all processors, some 10 ms.
        """
        moved = [(place.folder, group) for place, group in self._make() if place.version == 1]
        try:
            for _, group in moved:
                _move(group / "tasks", 0)
            yield
        finally:
            for home, _ in moved:
                _move(home / "tasks", 0)

    def admit(self, pid: int) -> None:
        """Move process `pid` into the groups of version 2, which take whole processes only."""
        for place, group in self._make():
            if place.version == 2:
                _move(group / "cgroup.procs", pid)

    def remove(self) -> None:
        """Remove the groups, whose processes have been waited for."""
        if self._made:
            _remove(self.groups)
        self._made = []

    def _make(self) -> list[tuple[Place, Path]]:
        if self._made is None:
            name = _PREFIX + _tag(self._folder) + "-" + self._folder.name
            wanted = [(place, place.folder / name) for place in self._places or find_places()]
            self._made = []
            if wanted:
                (self._folder / _RECORD).write_text("".join(f"{group}\n" for _, group in wanted))
            for place, group in wanted:
                try:
                    group.mkdir(exist_ok=True)
                except OSError as error:
                    _log.debug("no control group %s: %s", group, error)
                else:
                    self._made.append((place, group))
            faults.point(_MADE)
        return self._made


def remove_recorded(folder: Path) -> bool:
    """Remove the groups of the VM whose `folder` a dead owner left; false where they still have processes."""
    try:
        with (folder / _RECORD).open() as file:
            lines = file.read(_MAX_RECORD).splitlines()
    except OSError:
        return True
    name = _PREFIX + _tag(folder) + "-" + folder.name
    try:
        _remove([Path(line) for line in lines if Path(line).name == name])
    except FirkinError as error:
        _log.warning("%s", error)
        return False
    return True


def _tag(folder: Path) -> str:
    """Two states may have a VM of the same name."""
    return hashlib.blake2b(os.fsencode(folder.parent.resolve()), digest_size=4).hexdigest()


def _move(entry: Path, pid: int) -> None:
    try:
        entry.write_text(str(pid))
    except ProcessLookupError:
        # It has ended: whoever waits for it says why.
        return
    except OSError as error:
        _log.debug("can't move into %s: %s", entry.parent, error)


def _remove(groups: Sequence[Path]) -> None:
    deadline = time.monotonic() + _EMPTY_WITHIN
    for group in groups:
        while True:
            try:
                group.rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno == errno.EBUSY and time.monotonic() < deadline:
                    time.sleep(0.002)
                    continue
                raise FirkinError(f"can't remove the control group {group}: {error.strerror}") from error
            break
