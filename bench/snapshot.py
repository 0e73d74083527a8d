"""Saved VMs: warm images (runsc beside them), the pool, saving and restoring a container, how many clones fit."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.harness import Result, benchmark
from bench.start import _bundle, _runsc
from firkin import AsyncContainer, AsyncWarmPool, Stdio, warm_image_async
from firkin.core.ledger import HostFigures, ThisHost
from firkin.core.portable import export_snapshot, import_snapshot
from firkin.core.snapshots import Snapshots
from firkin.vmm.save import save

_ECHO = ("echo", "hi")
# As of a minimal container: the smallest that the clones of `density_clients` are.
_CLONE = {"cpus": 1, "memory": "128m"}
_MOST_CLONES = 256


async def _first_byte() -> float:
    began = time.perf_counter()
    async with await AsyncContainer.launch("busybox", _ECHO, stdout=Stdio.PIPED, warm=True) as container:
        assert container.process.stdout is not None
        data = await container.process.stdout.read()
        took = (time.perf_counter() - began) * 1e3
        assert data == b"hi\n", data
        await container.wait()
    return took


@benchmark(rounds=60)
async def image_snapshot_ms(rounds: int) -> list[Result]:
    """A call of the Python API to the first byte of `echo` in a clone of a warm image; `runsc run` in turns with it."""
    await warm_image_async("busybox")
    await _first_byte()
    if shutil.which("runsc") is None:
        return [Result.of("image_snapshot_ms", [await _first_byte() for _ in range(rounds)], target=125)]
    ours, theirs = [], []
    with _bundle() as bundle:
        await asyncio.to_thread(_runsc, bundle, -1)
        for number in range(rounds):
            ours.append(await _first_byte())
            theirs.append(await asyncio.to_thread(_runsc, bundle, number))
    return [
        Result.of("image_snapshot_ms", ours, target=125),
        Result.of("image_snapshot_ratio_runsc", ours, peer=theirs, target=1.0),
    ]


@benchmark(rounds=30)
async def warm_pool_ms(rounds: int) -> list[Result]:
    """A lease to the first byte of `echo`, from a pool that stands full."""
    samples = []
    async with AsyncWarmPool("busybox", 2) as pool:
        for _ in range(rounds):
            await pool.filled()
            began = time.perf_counter()
            async with await pool.lease(_ECHO, stdout=Stdio.PIPED) as container:
                assert container.process.stdout is not None
                data = await container.process.stdout.read()
                samples.append((time.perf_counter() - began) * 1e3)
                assert data == b"hi\n", data
                await container.wait()
    return [Result.of("warm_pool_ms", samples, target=35)]


@benchmark(rounds=30)
async def snapshot_save_ms(rounds: int) -> list[Result]:
    """`snapshot` of a container that idles, to its end (hashed and on the disk); for how long it stands still; what is
    written of its memory and devices; and `restore` to the handle of a clone that runs."""
    saves, pauses, rams, states, restores = [], [], [], [], []
    name = f"bench-{secrets.token_hex(4)}"
    async with await AsyncContainer.launch("busybox", ("sleep", "3600")) as container:
        snapshots = Snapshots(container.dirs)
        await container.run(("true",))
        for _ in range(rounds):
            began = time.perf_counter()
            report = await container.snapshot(name)
            saves.append((time.perf_counter() - began) * 1e3)
            pauses.append(report.paused * 1e3)
            rams.append(report.ram_bytes / 1e6)
            states.append(report.state_bytes / 1e3)
            began = time.perf_counter()
            async with await AsyncContainer.restore(name):
                restores.append((time.perf_counter() - began) * 1e3)
            snapshots.remove(name)
    return [
        Result.of("snapshot_save_ms", saves),
        Result.of("snapshot_pause_ms", pauses),
        Result.of("snapshot_ram_mb", rams, unit="MB"),
        Result.of("snapshot_state_kb", states, unit="kB"),
        Result.of("container_restore_ms", restores),
    ]


def _hardened(pid: int) -> int:
    raise PermissionError(pid)


@benchmark(rounds=10)
async def snapshot_hardened_pause_ms(rounds: int) -> list[Result]:
    """For how long a container of the default 512 MiB stands still where only QEMU may read its memory."""
    pauses = []
    async with await AsyncContainer.launch("busybox", ("sleep", "3600")) as container:
        vm = container.vm
        for _ in range(rounds):
            await vm.agent.quiesce()
            with tempfile.TemporaryDirectory() as folder:
                report = await save(vm, Path(folder), {}, lasting=False, memory=_hardened)
            await vm.agent.call(vm.resume_message())
            pauses.append(report.paused * 1e3)
    return [Result.of("snapshot_hardened_pause_ms", pauses)]


@benchmark(rounds=10)
async def snapshot_export_ms(rounds: int) -> list[Result]:
    """A snapshot of an idle container of 512 MiB to one file, and back; what both take on the disk."""
    exports, imports, sizes, stored = [], [], [], []
    name, again = (f"bench-{secrets.token_hex(4)}" for _ in range(2))
    async with await AsyncContainer.launch("busybox", ("sleep", "3600")) as container:
        await container.snapshot(name, stop=True)
    dirs = container.dirs
    try:
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(rounds):
                file = Path(folder) / "file"
                began = time.perf_counter()
                export_snapshot(name, file, dirs)
                exports.append((time.perf_counter() - began) * 1e3)
                sizes.append(file.stat().st_size / 1e6)
                stored.append(Snapshots(dirs).info(name).bytes / 1e6)
                with file.open("rb") as packed:
                    began = time.perf_counter()
                    import_snapshot(packed, again, dirs)
                    imports.append((time.perf_counter() - began) * 1e3)
                Snapshots(dirs).remove(again)
                file.unlink()
    finally:
        Snapshots(dirs).remove(name)
    return [
        Result.of("snapshot_export_ms", exports),
        Result.of("snapshot_import_ms", imports),
        Result.of("snapshot_disk_mb", stored, unit="MB"),
        Result.of("snapshot_file_mb", sizes, unit="MB"),
    ]


@benchmark(rounds=30)
async def density_clients(rounds: int) -> list[Result]:
    """How many idle clones stand beside one client that execs in a closed loop until its p95 has doubled.

    It ends at 256 clones, too, and where less than a tenth of the memory is left: then it is at least as many.
    """
    async with AsyncExitStack() as stack:
        busy = await stack.enter_async_context(await AsyncContainer.launch("busybox", ("sleep", "3600"), **_CLONE))
        for _ in range(5):
            await busy.run(_ECHO)
        alone = await _p95(busy, rounds)
        clones: list[AsyncContainer] = []
        host = ThisHost(busy.vm.folder.path)
        while len(clones) < _MOST_CLONES and _room(host.figures()):
            more = await busy.fork(8)
            for clone in more:
                stack.push_async_callback(clone.aclose)
            clones += more
            if await _p95(busy, rounds) > 2 * alone:
                break
    return [Result.of("density_clients", [float(len(clones))], unit="clones", higher_is_better=True)]


def _room(host: HostFigures) -> bool:
    return host.memory_available > host.memory / 10


async def _p95(container: AsyncContainer, rounds: int) -> float:
    samples = []
    for _ in range(rounds):
        began = time.perf_counter()
        await container.run(_ECHO)
        samples.append(time.perf_counter() - began)
    return sorted(samples)[int(len(samples) * 0.95)]
