"""The machine that figures were taken on: a figure without it says nothing."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from firkin.errors import FirkinError
from firkin.types.state import StateDirs
from firkin.vmm.assets import resolve_assets
from firkin.vmm.host import probe

__all__ = ["describe"]


def _first(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found.group(1).strip() if found else ""


def _virtual() -> dict[str, object]:
    """QEMU's version and the accelerator, with the reason, as Firkin itself found them out by trying."""
    dirs = StateDirs.default()
    try:
        host = probe(dirs, resolve_assets(dirs))
    except FirkinError as error:
        return {"qemu": "", "accelerator": "", "accelerator_reason": str(error)}
    version = ".".join(map(str, host.qemu_version))
    return {"qemu": version, "accelerator": host.accelerator, "accelerator_reason": host.accelerator_reason}


def describe() -> dict[str, object]:
    """Processor, cores, memory in MiB, kernel, distribution, Python, QEMU and accelerator."""
    return {
        "cpu": _first("/proc/cpuinfo", r"^model name\s*: (.*)$") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(_first("/proc/meminfo", r"^MemTotal:\s*(\d+)") or 0) // 1024,
        "machine": platform.machine(),
        "kernel": platform.release(),
        "distribution": _first("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "python": platform.python_version(),
        **_virtual(),
    }
