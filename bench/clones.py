"""Fifty containers alive together and idle: what each costs the host, and how fast it still answers."""

from __future__ import annotations

import asyncio
import time

from bench.boot import CLONES, IDLE, cpu_seconds, pss
from bench.harness import Result, benchmark
from firkin import AsyncContainer, Stdio


async def _exec_ms(container: AsyncContainer) -> float:
    began = time.perf_counter()
    process = await container.exec(("echo", "hi"), stdout=Stdio.PIPED)
    assert process.stdout is not None
    await process.stdout.read()
    took = (time.perf_counter() - began) * 1e3
    await process.wait()
    await container.forget(process)
    return took


@benchmark(rounds=CLONES)
async def clone_pss_mb(rounds: int) -> list[Result]:
    """Memory (PSS of QEMU's process, MB of 10^6 bytes) and CPU (of one core) of idle containers, then an exec's first
    byte in each: the third one, for the first translates what the others find."""
    clones: list[AsyncContainer] = []
    try:
        for _ in range(rounds):
            clones.append(await AsyncContainer.launch("busybox", ("sleep", "3600")))
        memory = [pss(clone.vm.pid) for clone in clones]
        before = [cpu_seconds(clone.vm.pid) for clone in clones]
        await asyncio.sleep(IDLE)
        used = [(cpu_seconds(clone.vm.pid) - was) / IDLE * 100 for clone, was in zip(clones, before, strict=True)]
        latencies = []
        for clone in clones:
            *_, last = [await _exec_ms(clone) for _ in range(3)]
            latencies.append(last)
    finally:
        await asyncio.gather(*(clone.aclose() for clone in clones))
    return [
        Result.of("clone_pss_mb", memory, unit="MB", target=45),
        Result.of("clone_idle_cpu_pct", used, unit="%", target=1.0),
        Result.of("clone_exec_ms", latencies, target=40),
    ]
