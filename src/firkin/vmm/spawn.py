"""The one doorway for child processes that must die with this process."""

from __future__ import annotations

import logging
import os
import queue
import resource
import shlex
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from functools import cache
from typing import IO, Any

from firkin import faults
from firkin.errors import BootError
from firkin.frozen import dataclass
from firkin.vmm.assets import PRELOAD_LIBRARY, guest_folder
from firkin.vmm.cgroup import Cage
from firkin.vmm.host import Lean
from firkin.vmm.ram_guard import RamGuard, identity_of

__all__ = ["Identity", "spawn", "unguard"]

_log = logging.getLogger("firkin.vmm.spawn")
_BEFORE_SPAWN = faults.declare("boot.before-spawn", "the VM's folder and sockets exist, no process yet")
_SPAWNED = faults.declare("boot.spawned", "QEMU was started, nobody waits for it yet")

# By default glibc gives each thread a heap of its own, and keeps what was once allocated by itself in it: some hundred
# kilobytes of each QEMU (mallopt(3)).
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(128 << 10),
}

# Of every child: a core file would hold the guest's memory; what is locked in memory can't be taken back.
_LIMITS = {resource.RLIMIT_CORE: 0, resource.RLIMIT_MEMLOCK: 64 << 10}
_LIMIT_NAMES = {
    resource.RLIMIT_CORE: "core",
    resource.RLIMIT_MEMLOCK: "memlock",
    resource.RLIMIT_FSIZE: "fsize",
    resource.RLIMIT_NOFILE: "nofile",
    resource.RLIMIT_NPROC: "nproc",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a child runs as: `uid`, a gid of the same number and `groups`; None is this process's user."""

    uid: int | None = None
    groups: tuple[int, ...] = ()


_OURS = Identity()


def spawn(
    argv: Sequence[str],
    *,
    identity: Identity = _OURS,
    fds: Sequence[int] = (),
    stderr: int | IO[bytes],
    no_new_privs: bool = True,
    huge_pages: bool = True,
    cage: Cage | None = None,
    limits: Mapping[int, int] | None = None,
    ram: int | None = None,
    lean: Lean | None = None,
    pages: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start `argv` with a bare environment and only `fds` open; it is killed when this process ends.

    `fds` keep their numbers. Without `no_new_privs` the child is to set that itself, once it is as it shall be; without
    `huge_pages` it has none, even where it asks for them. Before `argv` runs it is in `cage` and has `limits`, by
    `resource.RLIMIT_…` (FSIZE, NOFILE and NPROC). It can't punch holes into the file at `ram`, until `unguard` is
    called (see `firkin.vmm.ram_guard`). `lean` runs in place of the program that `argv` names, with a list of its first
    pages at `pages`, one of `fds`. The parent-death signal follows the *thread* that spawned, so one thread does it for
    the life of the process. Raises `BootError`.
    """
    command = [_launcher(), "--parent", str(os.getpid()), *_limit_words({**_LIMITS, **(limits or {})})]
    if identity.uid is not None:
        command += ["--user", str(identity.uid)]
        command += ["--groups", ",".join(map(str, identity.groups))] if identity.groups else []
    command += ["--no-new-privs"] if no_new_privs else []
    command += [] if huge_pages else ["--no-huge-pages"]
    environment = _ENVIRONMENT
    if lean is not None:
        command += ["--file", lean.program, "--preload", str(guest_folder() / PRELOAD_LIBRARY)]
        more = {"QEMU_MODULE_DIR": lean.modules, "FIRKIN_FIRST_PAGES": "" if pages is None else str(pages)}
        environment = _ENVIRONMENT | {name: value for name, value in more.items() if value}
    command += ["--", *argv]
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("spawn %s", shlex.join(command))
    faults.point(_BEFORE_SPAWN)
    try:
        child = _spawner(ram is not None).call(lambda: _popen(command, environment, fds, stderr, cage, ram))
    except OSError as error:
        raise BootError(
            f"can't start {command[0]}: {error.strerror}", transient=isinstance(error, BlockingIOError)
        ) from error
    faults.point(_SPAWNED)
    return child


def _popen(
    command: Sequence[str],
    environment: Mapping[str, str],
    fds: Sequence[int],
    stderr: int | IO[bytes],
    cage: Cage | None,
    ram: int | None,
) -> subprocess.Popen[bytes]:
    if ram is not None:
        _spawner(True).guarded[identity_of(ram)] += 1
    with cage.entered() if cage else nullcontext():
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment,
            cwd="/",
            pass_fds=fds,
            start_new_session=True,
        )
    if cage:
        cage.admit(child.pid)
    assert child.stdin is not None
    # Where it has ended already, whoever waits for it says why.
    with suppress(BrokenPipeError), child.stdin as go:
        go.write(b"\n")
    child.stdin = None
    return child


def _limit_words(limits: Mapping[int, int]) -> Iterator[str]:
    """Options that set `limits`, none of them above what this process may have."""
    for kind, wanted in limits.items():
        most = resource.getrlimit(kind)[1]
        yield "--limit"
        yield f"{_LIMIT_NAMES[kind]}={wanted if most == resource.RLIM_INFINITY else min(wanted, most)}"


@cache
def _launcher() -> str:
    """The program that becomes another one (guest/launch). Raises `BootError`."""
    path = guest_folder() / "launch"
    if not os.access(path, os.X_OK):
        raise BootError(
            f"{path} can't be run", hint="run tools/build_guest.py, or install a wheel where programs may run"
        )
    return str(path)


def unguard(ram: tuple[int, int]) -> None:
    """One child with the RAM file of this device and inode has ended."""
    _spawner(True).guarded[ram] -= 1


class _Spawner:
    """`guarded`: the RAM files into which what this thread spawns can't punch holes."""

    def __init__(self, guarding: bool) -> None:
        self.pid = os.getpid()
        self.guarded: Counter[tuple[int, int]] = Counter()
        self._guarding = guarding
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="firkin-spawner", daemon=True).start()

    def call(self, work: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        done: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((work, done))
        return done.result()

    def _run(self) -> None:
        unfiltered = self._guarding
        while True:
            work, done = self._jobs.get()
            try:
                if unfiltered:
                    # The filter is this thread's, and its children's.
                    RamGuard(self.guarded)
                    unfiltered = False
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where the work was asked for
                done.set_exception(error)


_current: dict[bool, _Spawner] = {}
_lock = threading.Lock()


def _spawner(guarding: bool) -> _Spawner:
    with _lock:
        found = _current.get(guarding)
        if found is None or found.pid != os.getpid():
            found = _current[guarding] = _Spawner(guarding)
        return found
