"""Pools of warm VMs: leased in order, refilled, bounded, and gone when they are closed."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from firkin import AsyncContainer, AsyncWarmPool, Container, Stdio, WarmPool
from firkin.core.ledger import HostFigures, Ledger, Promise, Reserves
from firkin.core.snapshots import Snapshots
from firkin.errors import FirkinTimeoutError, InvalidInputError, NotFoundError, StateError
from firkin.oci import Image
from firkin.types import StateDirs
from firkin.vmm import live

SHAPE = {"cpus": 1, "memory": "256m"}
GIB = 1 << 30
ROOMY = HostFigures(cpus=2, memory=16 * GIB, memory_available=12 * GIB, disk_available=100 * GIB, memory_pressure=0.0)


class Fake:
    """A host whose figures a test sets."""

    def __init__(self, figures: HostFigures = ROOMY) -> None:
        self.now = figures

    def figures(self) -> HostFigures:
        return self.now


PROMISE = Promise.of(1, 256 << 20)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"memory": GIB}, "memory"),
        ({"memory_available": GIB + 1000}, "memory"),
        ({"disk_available": 2 * GIB}, "disk"),
        ({"cpus": 0}, "processors"),
    ],
)
def test_the_ledger_keeps_the_hosts_reserves(change: dict[str, int], why: str) -> None:
    ledger = Ledger(Fake(replace(ROOMY, **change)), Reserves())  # type: ignore[arg-type]
    assert ledger.refusal(PROMISE).startswith(why)
    assert bool(ledger.refusal(PROMISE)) == bool(why)


def test_what_was_promised_counts_until_it_is_given_back() -> None:
    ledger = Ledger(Fake(replace(ROOMY, memory=2 * GIB)), Reserves())
    for _ in range(3):
        assert ledger.refusal(PROMISE) == ""
        ledger.promise(PROMISE)
    assert "promised" in ledger.refusal(PROMISE)
    ledger.give_back(PROMISE)
    assert ledger.refusal(PROMISE) == ""


def test_pressure_is_psi_where_there_is_psi() -> None:
    host = Fake()
    ledger = Ledger(host, Reserves())
    assert not ledger.under_pressure
    host.now = replace(ROOMY, memory_pressure=30.0)
    assert ledger.under_pressure
    host.now = replace(ROOMY, memory_pressure=-1.0, memory_available=GIB // 2)
    assert ledger.under_pressure
    assert not ledger.busy
    host.now = replace(ROOMY, load=9.0)
    assert ledger.busy
    host.now = replace(ROOMY, load=9.0, cpu_pressure=1.0)
    assert not ledger.busy


async def test_what_makes_no_pool_is_refused(fresh_home: Path) -> None:
    with pytest.raises(InvalidInputError, match="of an image or of a snapshot"):
        AsyncWarmPool()
    with pytest.raises(InvalidInputError, match="out of range"):
        AsyncWarmPool("busybox", 0)
    pool = AsyncWarmPool("busybox", 1)
    with pytest.raises(StateError, match="not started"):
        await pool.lease(["true"])
    with pytest.raises(InvalidInputError, match="memory is settled"):
        await pool.lease(["true"], memory="1g")
    with pytest.raises(NotFoundError, match="no snapshot x"):
        await AsyncWarmPool(snapshot="x").start()


SECRETS = "hostname; cat /proc/sys/kernel/random/uuid; date +%s; cat /run/firkin/epoch 2>/dev/null; echo end"


@pytest.mark.vm
async def test_leases_are_fresh_single_use_and_in_order(busybox_image: Image, home: Path) -> None:
    dirs = StateDirs.under(home)
    async with AsyncWarmPool("busybox", 2, host=Fake(), **SHAPE) as pool:  # type: ignore[arg-type]
        await pool.filled()
        standing = {path.name: path.stat().st_ctime_ns for path in live(dirs)}
        assert len(standing) == 2
        told, names = [], []
        for _ in range(3):
            async with await pool.lease(["sh", "-c", SECRETS], stdout=Stdio.PIPED) as container:
                assert isinstance(container, AsyncContainer)
                assert container.process.stdout is not None
                text = b""
                while data := await container.process.stdout.read():
                    text += data
                assert (await container.wait()).code == 0
                told.append(text.decode().split("\n"))
                names.append(container.id)
        assert len(set(names)) == 3
        # The first two were there already; the one that stood longest went first.
        assert set(names[:2]) == set(standing)
        assert [lines[0] for lines in told] == names
        assert len({lines[1] for lines in told}) == 3
        await pool.filled()
        assert pool.ready == 2
    assert live(dirs) == []
    with pytest.raises(StateError, match="closed"):
        await pool.lease(["true"])


@pytest.mark.vm
async def test_who_waits_is_served_in_order_and_the_ledger_is_kept(busybox_image: Image) -> None:
    host = Fake()
    async with AsyncWarmPool("busybox", 1, host=host, **SHAPE) as pool:  # type: ignore[arg-type]
        served: list[int] = []

        async def one(number: int) -> None:
            async with await pool.lease(["true"], timeout=120) as container:
                served.append(number)
                await container.wait()

        await asyncio.gather(*map(one, range(3)))
        assert served == [0, 1, 2]
        await pool.filled()
        # Memory gets short: what stands ready is given up, and nothing is made.
        host.now = replace(ROOMY, memory_pressure=50.0, memory_available=GIB // 2)
        await asyncio.wait_for(pool.emptied(), 30)
        with pytest.raises(FirkinTimeoutError, match="no VM was ready"):
            await pool.lease(["true"], timeout=0.5)


@pytest.mark.vm
async def test_a_member_that_died_is_not_leased(busybox_image: Image) -> None:
    async with AsyncWarmPool("busybox", 1, host=Fake(), **SHAPE) as pool:  # type: ignore[arg-type]
        await pool.filled()
        await pool._ready[0].vm.kill()
        async with await pool.lease(["true"], timeout=120) as container:
            assert (await container.wait()).code == 0


@pytest.mark.vm
@pytest.mark.parametrize("tmpfs", [[], ["/x"]], ids=["parked", "made anew"])
async def test_a_dry_run_takes_place_before_the_lease(busybox_image: Image, tmpfs: list[str]) -> None:
    dry_run = ["sh", "-c", "echo $0 $$ > /ran", "dry"]
    read = ["sh", "-c", "read -r what pid < /ran; exit $pid"]
    async with (
        AsyncWarmPool("busybox", 1, dry_run=dry_run, tmpfs=tmpfs, **SHAPE) as pool,  # type: ignore[arg-type]
        await pool.lease(read) as container,
    ):
        assert (await container.wait()).code == 1


@pytest.mark.vm
async def test_who_waits_is_told_of_whatever_goes_wrong(busybox_image: Image, home: Path) -> None:
    dirs = StateDirs.under(home)
    async with AsyncWarmPool("busybox", 1, host=Fake(), **SHAPE) as pool:  # type: ignore[arg-type]
        await pool.filled()
        names = [path.name for path in live(dirs)]

        async def broken() -> None:
            raise OSError(28, "No space left on device")

        pool._make = broken  # type: ignore[assignment, method-assign]
        async with await pool.lease(["true"]) as container:
            assert container.id in names
        with pytest.raises(StateError, match="No space left on device"):
            await pool.lease(["true"], timeout=30)


@pytest.mark.vm
async def test_a_container_that_no_parked_one_can_be(busybox_image: Image) -> None:
    async with AsyncWarmPool("busybox", 1, host=Fake(), tmpfs=["/x"], **SHAPE) as pool:  # type: ignore[arg-type]
        await pool.filled()
        async with await pool.lease(["sh", "-c", "grep -q ' /x tmpfs ' /proc/mounts"]) as container:
            assert (await container.wait()).code == 0


@pytest.mark.vm
def test_a_pool_of_a_snapshot_by_the_sync_face(busybox_image: Image) -> None:
    name = f"pooled-{os.getpid()}"
    script = "n=0; while read -r line; do n=$((n + 1)); echo $n; done"
    with Container.launch("busybox", ["sh", "-c", script], stdin=Stdio.PIPED, stdout=Stdio.PIPED, **SHAPE) as source:
        assert source.process.stdin is not None
        assert source.process.stdout is not None
        source.process.stdin.write(b"x\n")
        assert source.process.stdout.read() == b"1\n"
        source.snapshot(name)
    try:
        with WarmPool(snapshot=name, size=1, host=Fake()) as pool:
            for _ in range(2):
                with pool.lease(stdin=Stdio.PIPED, stdout=Stdio.PIPED) as clone:
                    assert clone.process.stdin is not None
                    assert clone.process.stdout is not None
                    clone.process.stdin.write(b"x\n")
                    assert clone.process.stdout.read() == b"2\n"
                    assert clone.run(["hostname"], text=True).stdout == f"{clone.id}\n"
    finally:
        Snapshots(StateDirs.default()).remove(name)
