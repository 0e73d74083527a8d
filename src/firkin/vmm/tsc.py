"""The rate of the host's time stamp counter, which a guest under TCG sees as its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["tsc_khz"]

# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_SAMPLES = 64
_WINDOW = 0.05
# A rate that the kernel states is exact; ours is off by a few parts in a million.
_AGREES = 2e-4


def tsc_khz(cpuinfo: Path = Path("/proc/cpuinfo")) -> int | None:
    """Kilohertz, or None where the host has no such counter. Takes 50 ms.

    It is measured: `/proc/cpuinfo` shows the present clock of a core, which is the counter's rate on some hosts only,
    and a guest's own calibration fails on a busy host. Where both agree, the exact figure of `/proc/cpuinfo` is taken.
    """
    if os.uname().machine != "x86_64":
        return None
    stated = _stated_khz(cpuinfo)
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        # SELinux can forbid executable memory.
        return stated
    code.write(_RDTSC)
    measured = _measure(ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code))))
    if stated is not None and abs(stated - measured) < stated * _AGREES:
        return stated
    return measured


def _measure(counter: Callable[[], int]) -> int:
    start = _sample(counter)
    time.sleep(_WINDOW)
    end = _sample(counter)
    return round((end[1] - start[1]) * 1e6 / (end[0] - start[0]))


def _sample(counter: Callable[[], int]) -> tuple[int, int]:
    """Nanoseconds and ticks at one instant: of several tries the one that was interrupted least."""
    tries = []
    for _ in range(_SAMPLES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        ticks = counter()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        tries.append((after - before, (before + after) // 2, ticks))
    _, nanoseconds, ticks = min(tries)
    return nanoseconds, ticks


def _stated_khz(cpuinfo: Path) -> int | None:
    try:
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("cpu MHz"):
                return round(float(line.partition(":")[2]) * 1000)
    except (OSError, ValueError):
        pass
    return None
