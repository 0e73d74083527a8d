"""What a run left on this machine: processes, mounts, sockets, interfaces, loop devices, shared memory, files, state.

Stands alone: it imports nothing of what it checks. As a script, `leftovers.py --before FILE` records, and
`leftovers.py --since FILE` prints what came since then, one line each, and exits with 1 if there is anything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Programs that Firkin starts, by the first part of their name, and Firkin itself.
HELPERS = ("qemu-system", "virtiofsd", "passt", "pasta", "setpriv", "firkin", "docker-registry", "swtpm")
# /tmp entries of tools that keep their folders on purpose.
KEPT_IN_TMP = ("pytest-of-", "systemd-private-", ".X", ".ICE", "bash_jobs", "bash_tool", "tmux-")
LISTENING_TCP = "0A"
# SO_ACCEPTCON in the flags column of /proc/net/unix.
LISTENING_UNIX = 0x10000


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """One thing on this machine. `key` tells it from every other of its kind; `what` is for people; `pids` hold it."""

    kind: str
    key: str
    what: str
    pids: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


# What is looked at may go away meanwhile: then it is not left over, and reads as empty.


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _names(folder: str) -> list[str]:
    try:
        return [path.name for path in Path(folder).iterdir()]
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _pids() -> list[int]:
    return [int(name) for name in _names("/proc") if name.isdigit()]


def _descriptors(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    return (_link(f"{folder}/{name}") for name in _names(folder))


def belongs(pid: int, marks: Sequence[str]) -> bool:
    """Whether a mark (a path, say) shows in the command line, environment, working folder or open files of `pid`."""
    text = _read(f"/proc/{pid}/cmdline") + b"\0" + _read(f"/proc/{pid}/environ")
    if any(mark.encode() in text for mark in marks):
        return True
    targets = (_link(f"/proc/{pid}/cwd"), *_descriptors(pid)) if marks else ()
    return any(mark in target for target in targets for mark in marks)


def _lineage() -> set[int]:
    """This process and those above it."""
    found, pid = set(), os.getpid()
    while pid > 0:
        found.add(pid)
        stat = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        pid = int(stat[1]) if len(stat) > 1 else 0
    return found


def processes(marks: Sequence[str]) -> Iterator[Found]:
    """Living processes (zombies apart) of `HELPERS`, or that belong to `marks`; never this one or those above it."""
    mine = _lineage()
    for pid in _pids():
        stat = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        command = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
        if pid in mine or not stat or not command or stat[0] in (b"Z", b"X"):
            continue
        names = [part.rpartition("/")[2] for part in command.split(" ")[:2]]
        if any(name.startswith(HELPERS) for name in names) or belongs(pid, marks):
            yield Found("process", f"{pid}:{stat[19].decode()}", f"{pid} {command[:200]}", (pid,))


def mounts(_marks: Sequence[str]) -> Iterator[Found]:
    """Mounts of this mount namespace (proc_pid_mountinfo(5))."""
    for line in _read("/proc/self/mountinfo").decode(errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        number, point, kind = left.split()[0], left.split()[4], right.split()[:2]
        yield Found("mount", f"{number} {point}", f"{point} ({' '.join(kind)})")


def _socket_holders() -> dict[str, tuple[int, ...]]:
    holders: dict[str, tuple[int, ...]] = {}
    for pid in _pids():
        for target in _descriptors(pid):
            if target.startswith("socket:["):
                inode = target[8:-1]
                holders[inode] = (*holders.get(inode, ()), pid)
    return holders


def _net_rows(name: str) -> Iterator[list[str]]:
    for line in _read(f"/proc/net/{name}").decode(errors="replace").splitlines()[1:]:
        yield line.split()


def sockets(_marks: Sequence[str]) -> Iterator[Found]:
    """Listening TCP, bound UDP and listening or named Unix sockets of this network namespace."""
    holders = _socket_holders()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for row in _net_rows(name):
            if name.startswith("udp") or row[3] == LISTENING_TCP:
                port = int(row[1].rpartition(":")[2], 16)
                yield Found("socket", f"{name} {row[1]} {row[9]}", f"{name} port {port}", holders.get(row[9], ()))
    for row in _net_rows("unix"):
        path = row[7] if len(row) > 7 else ""
        # What a listener accepted bears its path too, but goes with it.
        if int(row[3], 16) & LISTENING_UNIX:
            yield Found("socket", f"unix {row[6]} {path}", f"unix {path or '(unnamed)'}", holders.get(row[6], ()))


def interfaces(_marks: Sequence[str]) -> Iterator[Found]:
    """Network interfaces (taps, bridges, veths) and named network namespaces."""
    for name in _names("/sys/class/net"):
        yield Found("interface", name, name)
    for name in _names("/run/netns"):
        yield Found("interface", f"netns {name}", f"network namespace {name}")


def loop_devices(_marks: Sequence[str]) -> Iterator[Found]:
    """Loop devices that have a file."""
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        backing = _read(path).decode(errors="replace").strip()
        yield Found("loop device", f"{path.parts[3]} {backing}", f"{path.parts[3]} of {backing}")


def shared_memory(_marks: Sequence[str]) -> Iterator[Found]:
    """Entries of /dev/shm."""
    for name in _names("/dev/shm"):
        yield Found("shared memory", name, f"/dev/shm/{name}")


def temporary(_marks: Sequence[str]) -> Iterator[Found]:
    """Entries of /tmp and /var/tmp, but those that tools keep there on purpose."""
    for folder in ("/tmp", "/var/tmp"):
        for name in _names(folder):
            if not name.startswith(KEPT_IN_TMP):
                yield Found("temporary file", f"{folder}/{name}", f"{folder}/{name}")


def cgroups(marks: Sequence[str]) -> Iterator[Found]:
    """Control groups of Firkin's name, whichever version is mounted; with the mark of the state that each is of."""
    homes = {
        hashlib.blake2b(f"{os.path.realpath(mark)}/run/vm".encode(), digest_size=4).hexdigest(): mark for mark in marks
    }
    for folder, names, _files in os.walk("/sys/fs/cgroup"):
        for name in names:
            if "firkin" in name:
                tag = name.removeprefix("firkin-").partition("-")[0]
                yield Found("cgroup", f"{folder}/{name}", f"{folder}/{name} {homes.get(tag, '')}")


def state_entries(folders: Iterable[Path]) -> Iterator[Found]:
    """Everything below `folders`, which hold what lives with a process (`run/` of a `FIRKIN_HOME`)."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path != folder / "vm":
                yield Found("state", str(path), str(path))


KINDS: tuple[Callable[[Sequence[str]], Iterator[Found]], ...] = (
    processes, mounts, sockets, interfaces, loop_devices, shared_memory, temporary, cgroups,
)  # fmt: skip


def run_folders() -> list[Path]:
    """The `run` folders of this environment: of `FIRKIN_HOME`, of root, and of this user."""
    found = [Path("/run/firkin"), Path(f"/tmp/firkin-{os.getuid()}")]
    if home := os.environ.get("FIRKIN_HOME"):
        found.append(Path(home) / "run")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime) / "firkin")
    return found


def snapshot(folders: Iterable[Path] = (), marks: Sequence[str] = ()) -> frozenset[Found]:
    """All that is there now. `marks` make processes count that are not known by name."""
    found = {thing for kind in KINDS for thing in kind(marks)}
    return frozenset(found | set(state_entries(folders)))


def since(before: Iterable[Found], after: Iterable[Found]) -> list[Found]:
    """What `after` has and `before` has not, sorted. A thing is the same where kind and key are."""
    known = {(thing.kind, thing.key) for thing in before}
    return sorted(thing for thing in after if (thing.kind, thing.key) not in known)


def of_marks(things: Iterable[Found], marks: Sequence[str]) -> list[Found]:
    """Those of `things` that carry one of `marks` in their key or text, or that a process belonging to them holds."""
    return [
        thing
        for thing in things
        if any(mark in f"{thing.key} {thing.what}" for mark in marks) or any(belongs(pid, marks) for pid in thing.pids)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, or compare; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--before", type=Path, metavar="FILE", help="record what is there into FILE")
    choice.add_argument("--since", type=Path, metavar="FILE", help="print what is there and not in FILE")
    parser.add_argument("--folder", type=Path, action="append", default=[], help="a further run folder")
    options = parser.parse_args(arguments)
    if options.before:
        options.before.touch()
    now = snapshot([*run_folders(), *options.folder])
    if options.before:
        options.before.write_text(json.dumps(sorted([thing.kind, thing.key] for thing in now)))
        return 0
    before = [Found(kind, key, "") for kind, key in json.loads(options.since.read_text())]
    left = since(before, now)
    for thing in left:
        sys.stdout.write(f"left over: {thing}\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
