"""Runtime specifications for the tests: a small sound one, and copies of it with something changed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

DEFAULT_CAPABILITIES = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
MASKED = ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware", "/nowhere"]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base(root: Path | str, *args: str) -> dict[str, Any]:
    """Like Firkin's default for a container, without a cgroup (hosts of tests may have version 1)."""
    return {
        "ociVersion": "1.0.0",
        "root": {"path": str(root), "readonly": False},
        "hostname": "test",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": [PATH],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), DEFAULT_CAPABILITIES),
        },
        "mounts": [
            mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
            mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount(
                "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
            ),
            mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")],
            "maskedPaths": MASKED,
            "readonlyPaths": ["/proc/sys", "/proc/irq", "/nowhere"],
        },
    }


def mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    """One of `mounts`."""
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def changed(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one member, `path` being keys with dots between them, set to `value`."""
    spec = copy.deepcopy(spec)
    *parents, last = path.split(".")
    place: Any = spec
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return spec
