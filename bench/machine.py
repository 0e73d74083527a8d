"""The machine that figures were taken on: a figure without it says nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

__all__ = ["describe"]


def _first(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found.group(1).strip() if found else ""


def _qemu() -> str:
    try:
        done = subprocess.run([f"qemu-system-{platform.machine()}", "--version"], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    found = re.search(r"version ([0-9.]+)", done.stdout)
    return found.group(1) if found else ""


def describe() -> dict[str, object]:
    """Processor, cores, memory in MiB, kernel, Python, QEMU, accelerator (`FIRKIN_ACCEL`, else what there is)."""
    kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return {
        "cpu": _first("/proc/cpuinfo", r"^model name\s*: (.*)$") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(_first("/proc/meminfo", r"^MemTotal:\s*(\d+)") or 0) // 1024,
        "machine": platform.machine(),
        "kernel": platform.release(),
        "distribution": _first("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "python": platform.python_version(),
        "qemu": _qemu(),
        "accelerator": os.environ.get("FIRKIN_ACCEL") or ("kvm?" if kvm else "tcg"),
    }
