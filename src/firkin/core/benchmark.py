"""What starts and clones cost here, measured as a user sees it: `firkin bench`."""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from firkin.core.container import AsyncContainer
from firkin.core.pool import AsyncWarmPool
from firkin.core.runsc import runsc_first_byte
from firkin.core.snapshots import Snapshots
from firkin.core.stats import host_cost
from firkin.types import StateDirs, Stdio
from firkin.vmm import live

__all__ = ["Figure", "Report", "measure"]

_HELLO = ("echo", "hi")
_IDLE_SECONDS = 2.0
_CLONES = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured: its samples in `unit`, in the order in which they were taken."""

    name: str
    what: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return statistics.median(self.samples)

    @property
    def p95(self) -> float:
        """What 95% of the samples do not exceed."""
        return sorted(self.samples)[min(len(self.samples) - 1, int(len(self.samples) * 0.95))]

    def as_document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "samples": list(self.samples), "median": self.median, "p95": self.p95}


@dataclass(frozen=True, slots=True)
class Report:
    """All figures, on which machine they were taken, and what was left behind: nothing, if all is well."""

    image: str
    machine: dict[str, str]
    figures: tuple[Figure, ...]
    leftovers: tuple[str, ...]

    def as_document(self) -> dict[str, Any]:
        """For JSON."""
        figures = [figure.as_document() for figure in self.figures]
        return {**asdict(self), "figures": figures, "leftovers": list(self.leftovers)}


async def measure(
    image: str,
    rounds: int,
    *,
    cold: bool = True,
    dirs: StateDirs | None = None,
    told: Callable[[Figure], None] = lambda figure: None,
) -> Report:
    """Measure with `rounds` samples each (cold boots: a tenth); `told` hears of each figure when it is there.

    The image needs a shell and `cat`, `echo` and `sleep`.
    """
    dirs = dirs or StateDirs.default()
    before = {path.name for path in live(dirs)}
    bench = _Bench(image, rounds, dirs)
    figures = []
    for name, what, unit, take in bench.all(cold):
        samples = await take()
        if samples:
            figures.append(Figure(name, what, unit, tuple(samples)))
            told(figures[-1])
    left = (*sorted({path.name for path in live(dirs)} - before), *_children())
    return Report(image, bench.machine, tuple(figures), left)


class _Bench:
    def __init__(self, image: str, rounds: int, dirs: StateDirs) -> None:
        self._image = image
        self._rounds = rounds
        self._dirs = dirs
        self._costs: dict[str, list[float]] = {}
        self.machine: dict[str, str] = {}

    def all(self, cold: bool) -> list[tuple[str, str, str, Callable[[], Awaitable[Sequence[float]]]]]:
        """Name, meaning, unit, and what takes the samples."""
        few = max(1, self._rounds // 10)
        first = "call to first byte of output"
        rows: list[tuple[str, str, str, Callable[[], Awaitable[Sequence[float]]]]] = [
            ("fork", f"{first}, in a fork of a base VM", "ms", lambda: self._starts(self._rounds)),
            ("warm", f"{first}, in a clone of a warm image", "ms", lambda: self._starts(self._rounds, warm=True)),
            ("snapshot", "restore to the answer of the process that was saved", "ms", self._snapshot),
            ("pool", f"{first}, from a warm pool", "ms", self._pool),
            ("exec", f"{first}, in a running container", "ms", self._exec),
            ("forks", "clones of a running container each second", "1/s", self._forks),
            ("memory", "memory of a clone (PSS of its QEMU)", "MiB", lambda: self._cost("memory")),
            ("idle", "processor time of an idle clone", "%", lambda: self._cost("idle")),
            ("disk", "disk of a clone", "MiB", lambda: self._cost("disk")),
            ("runsc", f"{first}, of runsc", "ms", lambda: asyncio.to_thread(runsc_first_byte, self._rounds)),
        ]
        if cold:
            rows.insert(0, ("cold", f"{first}, after a boot", "ms", lambda: self._starts(few, fork=False)))
        return rows

    async def _starts(self, rounds: int, **options: Any) -> list[float]:
        samples = []
        for number in range(rounds + 1):
            began = time.perf_counter()
            async with await AsyncContainer.launch(
                self._image, _HELLO, stdout=Stdio.PIPED, dirs=self._dirs, **options
            ) as container:
                samples.append(await _answer(container, began))
                self.machine = _machine(container)
                await container.wait()
            if number == 0 and rounds > 1:
                # The first may have made a base VM or a warm image.
                samples.clear()
        return samples[:rounds]

    async def _snapshot(self) -> list[float]:
        name = f"bench-{secrets.token_hex(4)}"
        streams: Any = {"stdin": Stdio.PIPED, "stdout": Stdio.PIPED}
        async with await AsyncContainer.launch(self._image, ("cat",), dirs=self._dirs, **streams) as source:
            await source.snapshot(name)
        samples = []
        try:
            for _ in range(self._rounds):
                began = time.perf_counter()
                async with await AsyncContainer.restore(name, dirs=self._dirs, **streams) as clone:
                    assert clone.process.stdin is not None
                    await clone.process.stdin.write(b"hi\n")
                    samples.append(await _answer(clone, began))
        finally:
            Snapshots(self._dirs).remove(name)
        return samples

    async def _pool(self) -> list[float]:
        samples = []
        async with AsyncWarmPool(self._image, 2, dirs=self._dirs) as pool:
            for _ in range(self._rounds):
                await pool.filled()
                began = time.perf_counter()
                async with await pool.lease(_HELLO, stdout=Stdio.PIPED) as container:
                    samples.append(await _answer(container, began))
        return samples

    async def _exec(self) -> list[float]:
        samples = []
        async with await AsyncContainer.launch(self._image, ("sleep", "3600"), dirs=self._dirs) as container:
            await container.run(_HELLO)
            for _ in range(self._rounds):
                began = time.perf_counter()
                process = await container.exec(_HELLO, stdout=Stdio.PIPED)
                assert process.stdout is not None
                await process.stdout.read()
                samples.append((time.perf_counter() - began) * 1e3)
                await process.wait()
                await container.forget(process)
        return samples

    async def _forks(self) -> list[float]:
        """Also what the clones cost, while they are there."""
        async with await AsyncContainer.launch(self._image, ("sleep", "3600"), dirs=self._dirs) as source:
            began = time.perf_counter()
            clones = await source.fork(_CLONES)
            took = time.perf_counter() - began
            async with AsyncExitStack() as stack:
                for clone in clones:
                    stack.push_async_callback(clone.aclose)
                before = [host_cost(clone.vm.pid) for clone in clones]
                await asyncio.sleep(_IDLE_SECONDS)
                after = [host_cost(clone.vm.pid) for clone in clones]
                self._costs["idle"] = [
                    (new.cpu_usec - old.cpu_usec) / (_IDLE_SECONDS * 1e4)
                    for old, new in zip(before, after, strict=True)
                ]
                self._costs["memory"] = [cost.pss / (1 << 20) for cost in after if cost.pss is not None]
                self._costs["disk"] = [_disk(clone.vm.folder.path) for clone in clones]
        return [_CLONES / took]

    async def _cost(self, what: str) -> list[float]:
        return self._costs.get(what, [])


async def _answer(container: AsyncContainer, began: float) -> float:
    assert container.process.stdout is not None
    await container.process.stdout.read()
    return (time.perf_counter() - began) * 1e3


def _machine(container: AsyncContainer) -> dict[str, str]:
    host = container.vm.host
    return {
        "accelerator": host.accelerator,
        "qemu": ".".join(map(str, host.qemu_version)),
        "cpus": str(host.cpus),
        "memory": f"{host.memory >> 20} MiB",
        "kernel": os.uname().release,
    }


def _disk(folder: Path) -> float:
    return sum(path.lstat().st_blocks * 512 for path in folder.iterdir()) / (1 << 20)


def _children() -> list[str]:
    """Processes that this one started and that are still there."""
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in path.read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if command:
                found.append(f"process {pid} {command[:80]}")
    return found
