"""What this host can do for Firkin, what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from firkin.errors import FirkinError
from firkin.frozen import dataclass
from firkin.network.routes import Routes
from firkin.types import Platform, Size, StateDirs
from firkin.vmm.assets import resolve_assets
from firkin.vmm.cgroup import CONTROLLERS, find_places
from firkin.vmm.host import HostCapabilities, probe
from firkin.vmm.virtiofsd import try_sharing

__all__ = ["Finding", "examine"]

# Below it an image of some size does not fit beside what it is unpacked to.
_ROOM = Size.gib(2)
# What VMs keep while they run is small, until they write.
_LEAST = Size.mib(16)
_MEMORY = Size.mib(512)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `missing`: a feature lacks it; `broken`: nothing runs without it. `fix` says what to do."""

    name: str
    verdict: Literal["ok", "missing", "broken"]
    detail: str
    fix: str = ""


def examine(dirs: StateDirs) -> list[Finding]:
    """Look at everything; nothing found is raised. May boot a probe the first time, which takes some seconds."""
    try:
        assets = resolve_assets(dirs)
    except (FirkinError, OSError) as error:
        return [_broken("kernel", error), *_everywhere(dirs)]
    kernel = Finding("kernel", "ok", str(assets.kernel.path))
    try:
        return [kernel, *_host(probe(dirs, assets)), *_everywhere(dirs)]
    except (FirkinError, OSError) as error:
        return [kernel, _broken("qemu", error), *_everywhere(dirs)]


def _broken(name: str, error: FirkinError | OSError) -> Finding:
    if isinstance(error, FirkinError):
        return Finding(name, "broken", error.message, error.hint or "")
    # A full disk, or one that can't be written: the folders' own lines say which.
    where = f"{error.filename}: " if error.filename else ""
    return Finding(name, "broken", f"{where}{error.strerror or error}", "see data, cache and run below")


def _host(host: HostCapabilities) -> Iterator[Finding]:
    version = ".".join(map(str, host.qemu_version))
    loaded = "with all of its libraries" if host.lean is None else "without the libraries that no VM needs"
    yield Finding("qemu", "ok", f"{version}, {host.qemu}, machine {host.machine}, {loaded}")
    if host.accelerator == "kvm":
        yield Finding("accelerator", "ok", f"kvm: {host.accelerator_reason}")
    else:
        detail = f"tcg (software emulation, several times slower than kvm): {host.accelerator_reason}"
        yield Finding("accelerator", "missing", detail, "use a host, or a nested VM, with a working /dev/kvm")
    user = f"own user ids from {host.uid_base}" if host.uid_count else f"user {os.getuid()}"
    confined = "seccomp sandbox" if host.sandbox else "no seccomp sandbox"
    fix = "" if host.sandbox else "use a QEMU built with seccomp, as Debian's is"
    yield Finding("confinement", "ok" if host.sandbox else "missing", f"QEMU runs as {user}, {confined}", fix)
    yield _program("virtiofsd", host.virtiofsd, "live shares", "apt install qemu-system-common")
    works, detail = try_sharing()
    yield Finding("shares", "ok" if works else "missing", detail, "" if works else "let this user make user namespaces")
    yield _network()
    yield Finding("cpus", "ok", str(host.cpus))
    yield _memory(host)


def _network() -> Finding:
    routes = Routes()
    try:
        four, six = routes.has_ipv4(), routes.has_ipv6()
    finally:
        routes.close()
    if four or six:
        return Finding("network", "ok", " and ".join(["IPv4"] * four + ["IPv6"] * six))
    return Finding("network", "missing", "this host has no default route", "containers reach what --allow-net names")


def _everywhere(dirs: StateDirs) -> Iterator[Finding]:
    yield _unprivileged()
    yield _program("busybox", shutil.which("busybox") or "", "the embedded image", "apt install busybox-static")
    yield _libseccomp()
    yield from _emulators()
    yield _bounds()
    for name, folder in (("data", dirs.data), ("cache", dirs.cache), ("run", dirs.run)):
        yield _room(name, folder)


def _unprivileged() -> Finding:
    """Nothing needs root; what each user is given differs."""
    uid = os.getuid()
    if uid == 0:
        return Finding("user", "ok", "root; every other user of this machine may use Firkin, too")
    accelerated = os.access("/dev/kvm", os.R_OK | os.W_OK)
    if Path("/dev/kvm").exists() and not accelerated:
        return Finding("user", "missing", f"user {uid}, without /dev/kvm", f"as root: adduser {_user_name()} kvm")
    return Finding("user", "ok", f"user {uid}, without root's rights")


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _libseccomp() -> Finding:
    from ctypes.util import find_library

    return _program("libseccomp", find_library("seccomp") or "", "the containers' seccomp", "apt install libseccomp2")


def _emulators() -> Iterator[Finding]:
    """For images of the architectures that people have."""
    from firkin.core.emulation import find_emulator

    for architecture in ("amd64", "arm64"):
        if architecture == Platform.current().architecture:
            continue
        name = f"emulator {architecture}"
        try:
            yield Finding(name, "ok", str(find_emulator(architecture)))
        except FirkinError as error:
            yield Finding(name, "missing", f"{error.message}; needed for its images", error.hint or "")


def _memory(host: HostCapabilities) -> Finding:
    available = next(
        (int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvail" in line),
        host.memory,
    )
    detail = f"{Size(host.memory)}, {Size(available)} available"
    if available < _MEMORY:
        return Finding("memory", "missing", detail, f"a VM of the default size wants {_MEMORY}: free some, or --memory")
    return Finding("memory", "ok", detail)


def _bounds() -> Finding:
    """Which bounds QEMU and its helpers get from outside; resource limits hold everywhere."""
    places = find_places()
    bounded = {name for place in places for name in place.controllers}
    if not places:
        fix = "as a user: systemd-run --user --scope firkin …, or have a control group delegated"
        return Finding("cgroup", "missing", "no control group can be made: VMs have resource limits alone", fix)
    where = ", ".join(f"{'+'.join(place.controllers)} in {place.folder} (v{place.version})" for place in places)
    if lacking := [name for name in CONTROLLERS if name not in bounded]:
        return Finding("cgroup", "missing", f"{where}; not {', '.join(lacking)}", "have these controllers delegated")
    return Finding("cgroup", "ok", where)


def _program(name: str, path: str, purpose: str, fix: str) -> Finding:
    if path:
        return Finding(name, "ok", path)
    return Finding(name, "missing", f"not installed; needed for {purpose}", fix)


def _room(name: str, folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        return Finding(name, "broken", f"{folder} can't be written", "set FIRKIN_HOME to a folder of yours")
    free = Size(shutil.disk_usage(there).free)
    enough = free >= (_LEAST if name == "run" else _ROOM)
    return Finding(name, "ok" if enough else "missing", f"{folder}, {free} free", "" if enough else "make room")
