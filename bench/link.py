"""The guest link's speed: bytes through one stream beside a bare copy through the same port; a call's round trip."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from bench.bare_port import BLOCK, BLOCKS, WARM, bare_port
from bench.harness import Result, benchmark
from firkin.oci.store import ImageStore
from firkin.types.state import StateDirs
from firkin.vminitd.stream import Stream
from firkin.vmm.config import Disk, VmConfig
from firkin.vmm.machine import VirtualMachine

# The agent's own ends of a stream, there with `firkin.test=1` (guest/vminitd/src/testing.rs).
_DISCARD_PORT = 9
_SOURCE_PORT = 19
Way = Callable[[], Awaitable[float]]


@asynccontextmanager
async def _vm(dirs: StateDirs) -> AsyncIterator[VirtualMachine]:
    """A resumed VM with busybox on its first disk and the agent's test ports."""
    store = ImageStore(dirs)
    with store.rootfs(store.ensure_busybox()) as lease:
        config = VmConfig(disks=(Disk(lease.path),), cmdline_extra="firkin.test=1")
        async with await VirtualMachine.start(config, dirs=dirs, fork=False) as vm:
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


async def _write(stream: Stream) -> float:
    """Seconds to write `BLOCKS`; what the guest has not taken then is at most a window and a pipe."""
    data = bytes(8 * BLOCK)
    for _ in range(WARM // 8):
        await stream.write(data)
    began = time.perf_counter()
    for _ in range(BLOCKS // 8):
        await stream.write(data)
    return time.perf_counter() - began


async def _read(stream: Stream) -> float:
    """Seconds to read `BLOCKS`."""
    left = WARM * BLOCK
    while left > 0:
        left -= len(await stream.read(1 << 20))
    began = time.perf_counter()
    left = BLOCKS * BLOCK
    while left > 0:
        left -= len(await stream.read(1 << 20))
    return time.perf_counter() - began


async def _discard(vm: VirtualMachine) -> float:
    """Seconds to write `BLOCKS` to the agent itself, until it has taken the last byte."""
    async with await vm.link.open(_DISCARD_PORT) as stream:
        seconds = await _write(stream)
        began = time.perf_counter()
        await stream.end()
        assert await stream.read() == b""
        return seconds + time.perf_counter() - began


async def _source(vm: VirtualMachine) -> float:
    """Seconds to read `BLOCKS` that the agent itself sends."""
    stream = await vm.link.open(_SOURCE_PORT)
    try:
        return await _read(stream)
    finally:
        stream.reset()


async def _in_turns(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """MB/s of each way, measured in turns, each other round backwards; the first round is not counted."""
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        turns = list(ways.items())
        for name, way in turns if number % 2 == 0 else reversed(turns):
            seconds = await way()
            if number:
                figures[name].append(BLOCKS * BLOCK / 1e6 / seconds)
    return figures


async def _round_trips(vm: VirtualMachine, count: int) -> list[float]:
    trips = []
    for number in range(count + 20):
        began = time.perf_counter()
        await vm.agent.info()
        if number >= 20:
            trips.append((time.perf_counter() - began) * 1000)
    return trips


@benchmark(rounds=9)
async def link(rounds: int) -> list[Result]:
    """`link_…_ratio`: one stream to the agent itself beside dd(1) at the bare port; `rpc_rtt_ms` of the cheapest call.

    `stdio_…_mbps`: to and from a process, which is behind a pipe; its peer is dd at the bare port piped into dd.
    """
    dirs = StateDirs.default()
    sink = ["dd", f"bs={BLOCK}", "of=/dev/null"]
    source = ["dd", f"bs={BLOCK}", "if=/dev/zero"]
    async with _vm(dirs) as vm, bare_port(dirs, VmConfig()) as bare:
        ports: dict[str, Way] = {
            "in": lambda: _discard(vm),
            "bare in": bare.write,
            "out": lambda: _source(vm),
            "bare out": bare.read,
        }
        figures = await _in_turns(ports, rounds)
        async with _process(vm, "sink", sink) as (stdin, _), _process(vm, "source", source) as (_, stdout):
            processes: dict[str, Way] = {
                "stdio in": lambda: _write(stdin),
                "piped in": lambda: bare.write("pipedin"),
                "stdio out": lambda: _read(stdout),
                "piped out": lambda: bare.read("pipedout"),
            }
            figures |= await _in_turns(processes, rounds)
        trips = await _round_trips(vm, rounds * 20)
    speed: dict[str, Any] = {"higher_is_better": True, "unit": "MB/s"}
    return [
        Result.of("link_in_ratio", figures["in"], peer=figures["bare in"], target=0.5, **speed),
        Result.of("link_out_ratio", figures["out"], peer=figures["bare out"], target=0.5, **speed),
        Result.of("stdio_in_mbps", figures["stdio in"], peer=figures["piped in"], **speed),
        Result.of("stdio_out_mbps", figures["stdio out"], peer=figures["piped out"], **speed),
        Result.of("rpc_rtt_ms", trips),
    ]
