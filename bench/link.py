"""The guest link's speed: bytes through one stream beside a bare copy through the same port; a call's round trip."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.bare_port import BLOCK, BLOCKS, WARM, bare_port
from bench.harness import Result, benchmark
from firkin.oci.store import ImageStore
from firkin.types.state import StateDirs
from firkin.vminitd.stream import Stream
from firkin.vmm.config import Disk, VmConfig
from firkin.vmm.machine import VirtualMachine

_FIGURES = ("in", "bare in", "piped in", "out", "bare out", "piped out")


@asynccontextmanager
async def _vm(dirs: StateDirs) -> AsyncIterator[VirtualMachine]:
    """A resumed VM with busybox on its first disk."""
    store = ImageStore(dirs)
    with store.rootfs(store.ensure_busybox()) as lease:
        async with await VirtualMachine.start(VmConfig(disks=(Disk(lease.path),)), dirs=dirs, fork=False) as vm:
            await vm.agent.submit(vm.resume_message())
            yield vm


@asynccontextmanager
async def _process(vm: VirtualMachine, name: str, command: list[str]) -> AsyncIterator[tuple[Stream, Stream]]:
    """Run a command in a container of the guest; its stdin and stdout. The container ends with the block."""
    root = f"/run/container/{name}/rootfs"
    spec = {
        "ociVersion": "1.0.2",
        "root": {"path": root},
        "linux": {"cgroupsPath": f"/firkin/{name}", "namespaces": [{"type": "pid"}, {"type": "mount"}]},
        "mounts": [{"destination": "/dev", "type": "devtmpfs", "source": "dev"}],
        "process": {"args": command, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
    }
    stdin, stdout = vm.link.allocate_port(), vm.link.allocate_port()
    await vm.agent.mount("ext4", "serial:disk0", root, mkdir=True)
    async with vm.link.listen(stdin) as first, vm.link.listen(stdout) as second:
        encoded = json.dumps(spec).encode()
        await vm.agent.create_process(name, "init", encoded, start=True, stdin_port=stdin, stdout_port=stdout)
        async with await first.accept() as input, await second.accept() as output:
            yield input, output
    await vm.agent.wait_process(name, "init")
    await vm.agent.delete_process(name, "init")


async def _write(stdin: Stream) -> float:
    """Seconds to write `BLOCKS` to a running dd(1); what it has not read then is at most a window and a pipe."""
    data = bytes(8 * BLOCK)
    for _ in range(WARM // 8):
        await stdin.write(data)
    began = time.perf_counter()
    for _ in range(BLOCKS // 8):
        await stdin.write(data)
    return time.perf_counter() - began


async def _read(stdout: Stream) -> float:
    """Seconds to read `BLOCKS` from a running dd(1)."""
    left = WARM * BLOCK
    while left > 0:
        left -= len(await stdout.read(1 << 20))
    began = time.perf_counter()
    left = BLOCKS * BLOCK
    while left > 0:
        left -= len(await stdout.read(1 << 20))
    return time.perf_counter() - began


@benchmark(rounds=5)
async def link(rounds: int) -> list[Result]:
    """`link_in_ratio` and `link_out_ratio` against dd at the bare port, `rpc_rtt_ms` of the cheapest call.

    Our bytes go on to a process, through a pipe. `…_piped_ratio` has a peer that does so too: dd piped into dd.
    """
    dirs = StateDirs.default()
    size = BLOCKS * BLOCK / 1e6
    figures: dict[str, list[float]] = {name: [] for name in _FIGURES}
    sink = ["dd", f"bs={BLOCK}", "of=/dev/null"]
    source = ["dd", f"bs={BLOCK}", "if=/dev/zero"]
    async with _vm(dirs) as vm, bare_port(dirs, VmConfig()) as bare:
        async with _process(vm, "sink", sink) as (stdin, _), _process(vm, "source", source) as (_, stdout):
            for number in range(rounds + 1):
                taken = {
                    "in": await _write(stdin),
                    "bare in": await bare.write(),
                    "piped in": await bare.write("pipedin"),
                    "out": await _read(stdout),
                    "bare out": await bare.read(),
                    "piped out": await bare.read("pipedout"),
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
        Result.of("link_in_piped_ratio", figures["in"], peer=figures["piped in"], **ratio),
        Result.of("link_out_piped_ratio", figures["out"], peer=figures["piped out"], **ratio),
        Result.of("rpc_rtt_ms", trips),
    ]
