"""VMs alone: how long a cold boot and a fork take to their agent's answer."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.harness import Result, benchmark
from firkin.ext4 import make_empty
from firkin.types.state import StateDirs
from firkin.vmm import Disk, VirtualMachine, VmConfig

CLONES = 50
# What an idle guest uses is counted over this many seconds.
IDLE = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")


@benchmark(rounds=10)
async def cold_boot_ready_ms(rounds: int) -> Result:
    """From the call to the agent's answer, by a boot of the kernel."""
    return Result.of("cold_boot_ready_ms", await _starts(rounds, fork=False), target=2200)


@benchmark(rounds=30)
async def fork_ready_ms(rounds: int) -> Result:
    """From the call to the agent's answer, by a fork of a base VM."""
    return Result.of("fork_ready_ms", await _starts(rounds, fork=True))


@benchmark(rounds=CLONES)
async def forks_per_s(rounds: int) -> Result:
    """How many forks a second come up one after the other and live on."""
    dirs = StateDirs.default()
    async with await VirtualMachine.start(VmConfig(), dirs=dirs):
        pass
    vms: list[VirtualMachine] = []
    try:
        began = time.perf_counter()
        for _ in range(rounds):
            vms.append(await VirtualMachine.start(VmConfig(), dirs=dirs))
            await vms[-1].agent.submit(vms[-1].resume_message())
        rate = rounds / (time.perf_counter() - began)
    finally:
        await asyncio.gather(*(vm.aclose() for vm in vms))
    return Result.of("forks_per_s", [rate], unit="1/s", higher_is_better=True)


@benchmark(rounds=10)
async def first_disk_ms(rounds: int) -> Result:
    """In a fresh fork, mounting the first disk: its driver bound since before the save, or bound anew (the peer)."""
    samples: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        make_empty(image, 64 << 20)
        for _ in range(rounds):
            for anew in (False, True):
                async with await VirtualMachine.start(VmConfig(disks=(Disk(image),))) as vm:
                    await vm.agent.submit(vm.resume_message())
                    samples[anew].append(await _mount_ms(vm, anew))
    return Result.of("first_disk_ms", samples[False], peer=samples[True])


async def _mount_ms(vm: VirtualMachine, anew: bool) -> float:
    driver = "/sys/bus/virtio/drivers/virtio_blk"
    # "../devices/…/virtio1/block/vda"
    device = (await vm.agent.stat("/sys/block/vda")).link_target.split("/")[-3].encode()
    if anew:
        await vm.agent.write_file(f"{driver}/unbind", device)
    began = time.perf_counter()
    if anew:
        await vm.agent.write_file(f"{driver}/bind", device)
    await vm.agent.mount("ext4", "serial:disk0", "/run/bench", mkdir=True)
    return (time.perf_counter() - began) * 1e3


async def _starts(rounds: int, *, fork: bool) -> Sequence[float]:
    dirs = StateDirs.default()
    samples = []
    # The first makes what the others find: boot assets, the base VM.
    for number in range(rounds + 1):
        began = time.perf_counter()
        async with await VirtualMachine.start(VmConfig(), dirs=dirs, fork=fork) as vm:
            took = (time.perf_counter() - began) * 1e3
            if vm.forked != fork:
                raise RuntimeError("the VM did not start as it was asked to")
        if number:
            samples.append(took)
    return samples


def pss(pid: int) -> float:
    """The proportional set size of a process, in MB of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} has no PSS")


def cpu_seconds(pid: int) -> float:
    """What a process has used of processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
