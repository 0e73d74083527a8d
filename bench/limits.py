"""What limits, statistics and an idle VM cost the host."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from bench.harness import Result, benchmark
from firkin import AsyncContainer
from firkin.core.stats import host_cost
from firkin.types import StateDirs
from firkin.vmm.bounds import group_bounds
from firkin.vmm.config import VmConfig
from firkin.vmm.folder import VmFolder


@benchmark(rounds=30)
def cage_ms(rounds: int) -> Result:
    """Finding, making, bounding, entering and removing a VM's control groups."""
    config, samples = VmConfig(), []
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as home:
        for _ in range(rounds):
            with VmFolder.claim(StateDirs.under(Path(home)), "cage") as folder:
                began = time.perf_counter()
                folder.cage.bound(group_bounds(config, folder.path, [1]))
                with folder.cage.entered():
                    entered = time.perf_counter()
                folder.cage.remove()
                samples.append((entered - began) * 1e3)
            # The kernel takes removed groups apart for a while.
            time.sleep(0.05)
    return Result.of("cage_ms", samples, target=2)


@benchmark(rounds=30)
async def stats_ms(rounds: int) -> Result:
    """One reading of a container's counters and of what its VM costs."""
    async with await AsyncContainer.launch("busybox", ("sleep", "3600")) as container:
        await container.stats()
        samples = []
        for _ in range(rounds):
            began = time.perf_counter()
            await container.stats()
            samples.append((time.perf_counter() - began) * 1e3)
    return Result.of("stats_ms", samples)


@benchmark(rounds=5)
async def idle_vm(rounds: int) -> list[Result]:
    """QEMU's share of memory and of one processor while a container sleeps, each over 10 s, after 5 s to settle."""
    cpu, memory = [], []
    async with await AsyncContainer.launch("busybox", ("sleep", "3600")) as container:
        await asyncio.sleep(5)
        for _ in range(rounds):
            before, began = host_cost(container.vm.pid), time.perf_counter()
            await asyncio.sleep(10)
            now = host_cost(container.vm.pid)
            cpu.append((now.cpu_usec - before.cpu_usec) / (time.perf_counter() - began) / 1e4)
            memory.append((now.pss or 0) / (1 << 20))
    return [Result.of("idle_vm_cpu_pct", cpu, unit="%", target=1), Result.of("idle_vm_pss_mb", memory, unit="MiB")]


@benchmark(rounds=3)
async def memory_returned_pct(rounds: int) -> Result:
    """Of 256 MiB that a container of a clone touches and frees: what the host has back 10 s later."""
    samples = []
    async with await AsyncContainer.launch("busybox", ("sleep", "3600"), tmpfs=["/big:size=300m"]) as container:
        for _ in range(rounds):
            await container.run(["dd", "if=/dev/zero", "of=/big/file", "bs=1M", "count=256"], check=True)
            most = host_cost(container.vm.pid).pss or 0
            await container.run(["rm", "/big/file"], check=True)
            await asyncio.sleep(10)
            samples.append(100 * (most - (host_cost(container.vm.pid).pss or 0)) / (256 << 20))
    return Result.of("memory_returned_pct", samples, unit="%", target=90, higher_is_better=True)
