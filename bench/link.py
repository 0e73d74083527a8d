"""The guest link's speed: bytes through one stream beside a bare copy through the same port; a call's round trip."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.bare_port import BLOCK, bare_port
from bench.harness import Result, benchmark
from firkin.oci.store import ImageStore
from firkin.types.state import StateDirs
from firkin.vminitd.stream import Stream
from firkin.vmm.config import Disk, VmConfig
from firkin.vmm.machine import VirtualMachine

# 16 MiB a round: about a second under TCG.
_BLOCKS = 512
_SPEC = {
    "ociVersion": "1.0.2",
    "root": {"path": "/run/container/bench/rootfs"},
    "linux": {"cgroupsPath": "/firkin/bench", "namespaces": [{"type": "pid"}, {"type": "mount"}]},
    "mounts": [{"destination": "/dev", "type": "devtmpfs", "source": "dev"}],
}


@asynccontextmanager
async def _vm(dirs: StateDirs) -> AsyncIterator[VirtualMachine]:
    """A resumed VM with busybox on its first disk."""
    store = ImageStore(dirs)
    with store.rootfs(store.ensure_busybox()) as lease:
        async with await VirtualMachine.start(VmConfig(disks=(Disk(lease.path),)), dirs=dirs, fork=False) as vm:
            await vm.agent.submit(vm.resume_message())
            yield vm


@asynccontextmanager
async def _process(vm: VirtualMachine, command: str) -> AsyncIterator[tuple[Stream, Stream]]:
    """Run a shell command in a container of the guest; its stdin and stdout."""
    process = {"args": ["/bin/sh", "-c", command], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    spec = json.dumps({**_SPEC, "process": process}).encode()
    stdin, stdout = vm.link.allocate_port(), vm.link.allocate_port()
    await vm.agent.mount("ext4", "serial:disk0", "/run/container/bench/rootfs", mkdir=True)
    async with vm.link.listen(stdin) as first, vm.link.listen(stdout) as second:
        await vm.agent.create_process("bench", "init", spec, start=True, stdin_port=stdin, stdout_port=stdout)
        async with await first.accept() as input, await second.accept() as output:
            yield input, output
    await vm.agent.wait_process("bench", "init")
    await vm.agent.delete_process("bench", "init")


async def _write(vm: VirtualMachine) -> float:
    """Seconds to write `_BLOCKS` to the stdin of a process until it says that it has read them all."""
    async with _process(vm, f"dd bs={BLOCK} of=/dev/null 2>/dev/null; echo done") as (stdin, stdout):
        data = bytes(8 * BLOCK)
        began = time.perf_counter()
        for _ in range(_BLOCKS // 8):
            await stdin.write(data)
        await stdin.end()
        await stdout.read()
        return time.perf_counter() - began


async def _read(vm: VirtualMachine) -> float:
    """Seconds until `_BLOCKS` of a process's stdout are here."""
    async with _process(vm, f"read x; exec dd if=/dev/zero bs={BLOCK} count={_BLOCKS} 2>/dev/null") as (stdin, stdout):
        began = time.perf_counter()
        await stdin.write(b"go\n")
        while await stdout.read(1 << 20):
            pass
        return time.perf_counter() - began


@benchmark(rounds=5)
async def link(rounds: int) -> list[Result]:
    """`link_in_ratio` and `link_out_ratio` against dd at the bare port, `rpc_rtt_ms` of the cheapest call."""
    dirs = StateDirs.default()
    size = _BLOCKS * BLOCK / 1e6
    figures: dict[str, list[float]] = {name: [] for name in ("in", "bare in", "out", "bare out")}
    async with _vm(dirs) as vm, bare_port(dirs, VmConfig()) as bare:
        for number in range(rounds + 1):
            taken = {
                "in": await _write(vm),
                "bare in": await bare.write(_BLOCKS),
                "out": await _read(vm),
                "bare out": await bare.read(_BLOCKS),
            }
            if number:
                for name, seconds in taken.items():
                    figures[name].append(size / seconds)
        trips = []
        for number in range(rounds * 40 + 20):
            began = time.perf_counter()
            await vm.agent.info()
            if number >= 20:
                trips.append((time.perf_counter() - began) * 1000)
    ratio = {"target": 0.5, "higher_is_better": True, "unit": "MB/s"}
    return [
        Result.of("link_in_ratio", figures["in"], peer=figures["bare in"], **ratio),
        Result.of("link_out_ratio", figures["out"], peer=figures["bare out"], **ratio),
        Result.of("rpc_rtt_ms", trips),
    ]
