"""How many VMs may stand ready: a ledger of processors, memory and disk, with reserves that stay the host's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firkin.types import Size

__all__ = ["Host", "HostFigures", "Ledger", "Promise", "Reserves"]

# A VM costs QEMU's own memory beside the guest's.
_OVERHEAD = 64 << 20
# Percent of the last 10 s in which something waited for memory (Documentation/accounting/psi.rst).
_MEMORY_PRESSURE = 10.0
_CPU_PRESSURE = 75.0
# Where there is no PSI: runnable tasks a processor.
_LOAD = 3.0


@dataclass(frozen=True, slots=True)
class Reserves:
    """What is never promised to a pool: memory and disk in bytes; and how many virtual processors a real one may serve
    at a time, leased and ready VMs together."""

    memory: int = Size.gib(1)
    disk: int = Size.gib(2)
    vcpus_per_cpu: int = 32


@dataclass(frozen=True, slots=True)
class Promise:
    """What one VM may come to use at most: processors, bytes of memory, bytes of disk expected."""

    cpus: int
    memory: int
    disk: int

    @classmethod
    def of(cls, cpus: int, memory: int, disk: int = 64 << 20) -> Promise:
        """Of a VM with `cpus` and `memory` bytes."""
        return cls(cpus, memory + _OVERHEAD, disk)


@dataclass(frozen=True, slots=True)
class HostFigures:
    """The host as it is now. Pressures are percent of the last 10 s, -1 where the kernel does not tell.

    `load` is the runnable tasks of each processor.
    """

    cpus: int
    memory: int
    memory_available: int
    disk_available: int
    memory_pressure: float = -1.0
    cpu_pressure: float = -1.0
    load: float = 0.0


class Host(Protocol):
    """Where the figures come from."""

    def figures(self) -> HostFigures:
        """The host, now."""


class ThisHost:
    """The machine that this runs on; `folder` says which disk counts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def figures(self) -> HostFigures:
        """Read from /proc."""
        memory = dict(re.findall(r"^(\w+):\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE))
        disk = os.statvfs(self._folder)
        cpus = len(os.sched_getaffinity(0))
        return HostFigures(
            cpus=cpus,
            memory=int(memory["MemTotal"]) << 10,
            memory_available=int(memory["MemAvailable"]) << 10,
            disk_available=disk.f_bavail * disk.f_frsize,
            memory_pressure=_pressure("memory"),
            cpu_pressure=_pressure("cpu"),
            load=os.getloadavg()[0] / cpus,
        )


def _pressure(what: str) -> float:
    try:
        text = Path(f"/proc/pressure/{what}").read_text()
    except OSError:
        return -1.0
    found = re.search(r"^some avg10=([0-9.]+)", text, re.MULTILINE)
    return float(found[1]) if found else -1.0


class Ledger:
    """What a pool's VMs were promised, against what the host has."""

    def __init__(self, host: Host, reserves: Reserves) -> None:
        self._host = host
        self._reserves = reserves
        self._promised: list[Promise] = []

    def refusal(self, wanted: Promise) -> str:
        """Why `wanted` can't be promised now; empty where it can."""
        host, kept = self._host.figures(), self._reserves
        total = [*self._promised, wanted]
        if sum(promise.memory for promise in total) > host.memory - kept.memory:
            return "memory: all but the host's reserve is promised"
        if host.memory_available < kept.memory + wanted.memory // 2:
            return "memory: too little is available"
        if sum(promise.cpus for promise in total) > host.cpus * kept.vcpus_per_cpu:
            return "processors: as many VMs as they may serve"
        if host.disk_available < kept.disk + wanted.disk:
            return "disk: what is free is the host's reserve"
        return ""

    def promise(self, wanted: Promise) -> None:
        """Note it."""
        self._promised.append(wanted)

    def give_back(self, promise: Promise) -> None:
        """It is used no more."""
        self._promised.remove(promise)

    @property
    def under_pressure(self) -> bool:
        """Whether what stands ready should make room: something waits for memory, or the reserve is touched."""
        host = self._host.figures()
        if host.memory_pressure >= 0 and host.memory_pressure > _MEMORY_PRESSURE:
            return True
        return host.memory_available < self._reserves.memory

    @property
    def busy(self) -> bool:
        """Whether the processors have enough to do: what nobody waits for can be made later."""
        host = self._host.figures()
        return host.cpu_pressure > _CPU_PRESSURE if host.cpu_pressure >= 0 else host.load > _LOAD
