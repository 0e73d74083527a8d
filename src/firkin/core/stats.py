"""What a container uses, as the guest's kernel counts it, and what its VM costs the host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firkin.frozen import dataclass

if TYPE_CHECKING:
    from firkin.vminitd._generated import agent_pb2 as pb

__all__ = [
    "BlockStats",
    "CpuStats",
    "HostCost",
    "MemoryEvents",
    "MemoryStats",
    "NetworkStats",
    "Stats",
    "VmStats",
    "host_cost",
    "read_stats",
]

# What a guest writes is not to be believed: no counter of the kernel's is longer, no VM has more interfaces.
_LARGEST = (1 << 64) - 1
_MOST_INTERFACES = 64
_COLUMNS_OF_NET_DEV = 16


@dataclass(frozen=True, slots=True)
class CpuStats:
    """Processor time in microseconds; `periods` of the quota in all and those in which it ran out (cpu.stat)."""

    usage_usec: int
    user_usec: int
    system_usec: int
    throttled_usec: int
    periods: int
    throttled_periods: int


@dataclass(frozen=True, slots=True)
class MemoryEvents:
    """How often a limit was met (memory.events): throttled at `high`, reclaimed at `max`, out of memory, killed."""

    high: int
    max: int
    oom: int
    oom_kill: int


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Bytes: now (the page cache included), without cache that can be dropped, the most so far, the cgroup's limit.

    `limit` is `None` where the cgroup has none: then the VM's size is the limit.
    """

    current: int
    working_set: int
    peak: int
    limit: int | None
    events: MemoryEvents


@dataclass(frozen=True, slots=True)
class BlockStats:
    """Bytes and operations of all the container's disks (io.stat)."""

    read_bytes: int
    written_bytes: int
    reads: int
    writes: int


@dataclass(frozen=True, slots=True)
class NetworkStats:
    """One interface of the VM, the loopback left out (proc_pid_net(5), dev)."""

    name: str
    received_bytes: int
    received_packets: int
    received_dropped: int
    sent_bytes: int
    sent_packets: int
    sent_dropped: int


@dataclass(frozen=True, slots=True)
class VmStats:
    """The whole VM as its kernel sees it: bytes, seconds since its boot, the load average of the last minute."""

    memory_total: int
    memory_available: int
    uptime: float
    load: float


@dataclass(frozen=True, slots=True)
class HostCost:
    """What the VM costs the host: QEMU's share of memory in bytes and its processor time in microseconds.

    `pss` counts a page that n processes share as 1/n (proc_pid_smaps_rollup(5)); `None` where it may not be read.
    """

    pid: int
    pss: int | None
    cpu_usec: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A container's counters at one moment (`read_at`: the host's clock, UTC). `tasks` counts threads too."""

    id: str
    read_at: datetime
    processes: int
    tasks: int
    tasks_limit: int | None
    cpu: CpuStats
    memory: MemoryStats
    block: BlockStats
    network: tuple[NetworkStats, ...]
    vm: VmStats
    host: HostCost

    def as_document(self) -> dict[str, Any]:
        """Plain values, as `firkin stats --format json` prints them."""
        return {**asdict(self), "read_at": self.read_at.isoformat()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Stats:
        """The reverse of `as_document`. Raises `KeyError` or `TypeError` for something else."""
        memory = document["memory"]
        return cls(
            id=document["id"],
            read_at=datetime.fromisoformat(document["read_at"]),
            processes=document["processes"],
            tasks=document["tasks"],
            tasks_limit=document["tasks_limit"],
            cpu=CpuStats(**document["cpu"]),
            memory=MemoryStats(**{**memory, "events": MemoryEvents(**memory["events"])}),
            block=BlockStats(**document["block"]),
            network=tuple(NetworkStats(**one) for one in document["network"]),
            vm=VmStats(**document["vm"]),
            host=HostCost(**document["host"]),
        )


def read_stats(id: str, container: pb.StatisticsReply, vm: pb.StatisticsReply, host: HostCost) -> Stats:
    """`Stats` of the agent's answers for the container and for the VM. What is missing or malformed counts as 0."""
    files = container.cgroup
    proc = vm.proc
    uptime, load = (_first_float(proc[name]) if name in proc else 0.0 for name in ("uptime", "loadavg"))
    meminfo = _flat(proc["meminfo"].replace(":", "")) if "meminfo" in proc else {}
    return Stats(
        id=id,
        read_at=datetime.now(UTC),
        processes=len(container.pids),
        tasks=_number(files.get("pids.current", "")) or 0,
        tasks_limit=_number(files.get("pids.max", "")),
        cpu=_cpu(_flat(files.get("cpu.stat", ""))),
        memory=_memory(files),
        block=_block(files.get("io.stat", "")),
        network=_network(proc.get("net/dev", "")),
        vm=VmStats(meminfo.get("MemTotal", 0) * 1024, meminfo.get("MemAvailable", 0) * 1024, uptime, load),
        host=host,
    )


def host_cost(pid: int, proc: Path = Path("/proc")) -> HostCost:
    """What process `pid` costs now; zeros where it has ended."""
    try:
        # proc_pid_stat(5): fields 14 and 15, in clock ticks, counted behind the name, which may hold anything.
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, IndexError):
        return HostCost(pid, None, 0)
    try:
        rollup = (proc / str(pid) / "smaps_rollup").read_text()
    except OSError:
        # Another user's, or it ended just now.
        rollup = ""
    pss = _flat(rollup.replace(":", "")).get("Pss")
    return HostCost(pid, None if pss is None else pss * 1024, ticks * 1_000_000 // os.sysconf("SC_CLK_TCK"))


def _number(text: str) -> int | None:
    text = text.strip()
    return min(int(text), _LARGEST) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def _first_float(text: str) -> float:
    word = text.split(" ", 1)[0]
    whole, _, part = word.partition(".")
    return float(f"{_number(whole) or 0}.{_number(part) or 0:02d}")


def _flat(text: str) -> dict[str, int]:
    """A flat keyed file, `key value` a line; lines of another form are left out."""
    words = (line.split() for line in text.splitlines())
    return {line[0]: number for line in words if len(line) >= 2 and (number := _number(line[1])) is not None}


def _cpu(found: Mapping[str, int]) -> CpuStats:
    names = ("usage_usec", "user_usec", "system_usec", "throttled_usec", "nr_periods", "nr_throttled")
    return CpuStats(*(found.get(name, 0) for name in names))


def _memory(files: Mapping[str, str]) -> MemoryStats:
    current = _number(files.get("memory.current", "")) or 0
    cache = _flat(files.get("memory.stat", "")).get("inactive_file", 0)
    events = _flat(files.get("memory.events", ""))
    return MemoryStats(
        current=current,
        working_set=max(current - cache, 0),
        peak=_number(files.get("memory.peak", "")) or current,
        limit=_number(files.get("memory.max", "")),
        events=MemoryEvents(*(events.get(name, 0) for name in ("high", "max", "oom", "oom_kill"))),
    )


def _block(text: str) -> BlockStats:
    """io.stat: `major:minor key=value …` a line, one a disk."""
    sums = dict.fromkeys(("rbytes", "wbytes", "rios", "wios"), 0)
    for line in text.splitlines():
        for pair in line.split()[1:]:
            key, _, value = pair.partition("=")
            if key in sums:
                sums[key] += _number(value) or 0
    return BlockStats(*sums.values())


def _network(text: str) -> tuple[NetworkStats, ...]:
    found = []
    for line in text.splitlines():
        name, colon, rest = line.strip().partition(":")
        columns = [_number(word) or 0 for word in rest.split()]
        if not colon or name == "lo" or not name.isprintable() or len(columns) < _COLUMNS_OF_NET_DEV:
            continue
        received, sent = columns[:8], columns[8:]
        found.append(NetworkStats(name, received[0], received[1], received[3], sent[0], sent[1], sent[3]))
    return tuple(found[:_MOST_INTERFACES])
