"""The link against the real agent in a real VM: what issue 3 must show, small by default and whole under soak."""

from __future__ import annotations

import asyncio
import hashlib
import random
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from firkin.errors import LinkError, StreamResetError
from firkin.oci import Image, ImageStore
from firkin.vminitd.agent import Agent
from firkin.vminitd.link import Link
from firkin.vminitd.stream import Stream
from firkin.vmm.config import Disk, VmConfig
from firkin.vmm.machine import VirtualMachine
from tests.vminitd.guest import process, relink
from tests.vminitd.test_hostile import ATTACKS

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

MIB = 1 << 20
VSOCK_PORT = 5000


@asynccontextmanager
async def resumed(
    store: ImageStore, image: Image, cmdline: str = "", *, fork: bool = True
) -> AsyncIterator[VirtualMachine]:
    """A VM with busybox on its disk, ready to run it. One that booted, as by a `cmdline`, can be connected to again."""
    with store.rootfs(image) as lease:
        config = VmConfig(disks=(Disk(lease.path),), cmdline_extra=cmdline)
        async with await VirtualMachine.start(config, fork=fork and not cmdline) as vm:
            await vm.agent.submit(vm.resume_message())
            yield vm


async def send(stream: Stream, size: int, seed: int) -> bytes:
    """Write `size` bytes that look random, and END; their hash."""
    total = hashlib.sha256()
    block = random.Random(seed).randbytes(65_521)
    while size:
        part = block[: min(size, len(block))]
        await stream.write(part)
        total.update(part)
        size -= len(part)
    await stream.end()
    return total.digest()


async def receive(stream: Stream) -> bytes:
    """The hash of everything up to END."""
    total = hashlib.sha256()
    while data := await stream.read():
        total.update(data)
    return total.digest()


async def through_cat(agent: Agent, name: str, size: int) -> None:
    """`size` bytes into a cat(1) in the guest and out again."""
    async with process(agent, name, "cat") as (stdin, stdout):
        sent, received = await asyncio.gather(send(stdin, size, hash(name)), receive(stdout))
    assert sent == received


async def check_bytes(store: ImageStore, image: Image, size: int) -> None:
    async with resumed(store, image) as vm:
        await through_cat(vm.agent, "warm", MIB)
        before = await guest_memory(vm.agent)
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for streams in (1, 16):
            began = time.perf_counter()
            await asyncio.gather(*(through_cat(vm.agent, f"c{streams}-{n}", size // streams) for n in range(streams)))
            rate = size / MIB / (time.perf_counter() - began)
            sys.stdout.write(f"{size // MIB} MiB each way through {streams} streams: {rate:.1f} MiB/s\n")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - host
        guest = before - await guest_memory(vm.agent)
        sys.stdout.write(f"memory: host grew by {grown / 1024:.1f} MiB, the guest by {guest / 1024:.1f} MiB\n")
        assert grown < 24 * 1024
        assert guest < 64 * 1024
        assert vm.link.error is None


async def guest_memory(agent: Agent) -> int:
    """KiB that the guest has left, its page cache counted as free."""
    meminfo = (await agent.statistics()).proc["meminfo"]
    return int(meminfo.split("MemAvailable:")[1].split()[0])


async def test_bytes_each_way_through_one_and_sixteen_streams(store: ImageStore, busybox_image: Image) -> None:
    await check_bytes(store, busybox_image, 16 * MIB)
    assert busybox_image.layers


@pytest.mark.soak
async def test_a_gibibyte_each_way_through_one_and_sixteen_streams(store: ImageStore, busybox_image: Image) -> None:
    await check_bytes(store, busybox_image, 1024 * MIB)
    assert busybox_image.layers


async def test_a_stalled_reader_stalls_only_itself(store: ImageStore, busybox_image: Image) -> None:
    async with resumed(store, busybox_image) as vm, process(vm.agent, "stalled", "cat") as (stdin, stdout):
        stuck = asyncio.create_task(send(stdin, 8 * MIB, 1))
        # What fits: a window each way, the pipes, and what cat holds.
        await through_cat(vm.agent, "lively", 4 * MIB)
        assert (await vm.agent.info()).agent_version
        assert not stuck.done()
        assert await receive(stdout) == await stuck


async def loop_back(link: Link, listener_port: int, payload: bytes) -> bytes:
    """Host to guest, through AF_VSOCK's loopback in its kernel, and back to the host."""
    async with link.listen(listener_port) as listener, await link.open(listener_port) as out:
        await out.write(payload)
        await out.end()
        async with await listener.accept() as back:
            parts = []
            while data := await back.read():
                parts.append(data)
            return b"".join(parts)


async def check_short_streams(store: ImageStore, image: Image, calls: int, loops: int) -> None:
    async with resumed(store, image) as vm:
        for _ in range(calls // 100):
            replies = await asyncio.gather(*(vm.agent.info() for _ in range(100)))
            assert len(replies) == 100
        await vm.agent.vsock_listen(VSOCK_PORT)
        for number in range(loops):
            payload = random.Random(number).randbytes(number % 5000)
            assert await loop_back(vm.link, VSOCK_PORT, payload) == payload
        refused = await vm.dial(VSOCK_PORT + 1)
        with pytest.raises(StreamResetError):
            await refused.read()
        assert vm.link._framing.streams == 0
        assert vm.link._handlers == {}


async def test_many_short_streams(store: ImageStore, busybox_image: Image) -> None:
    await check_short_streams(store, busybox_image, calls=1000, loops=40)
    assert busybox_image.layers


@pytest.mark.soak
async def test_ten_thousand_short_streams(store: ImageStore, busybox_image: Image) -> None:
    await check_short_streams(store, busybox_image, calls=10_000, loops=2000)
    assert busybox_image.layers


async def check_reconnects(store: ImageStore, image: Image, count: int) -> None:
    """Cut the connection at random points of traffic; the next one must never see a byte of it."""
    chance = random.Random(7)
    async with resumed(store, image, fork=False) as vm:
        await vm.agent.vsock_listen(VSOCK_PORT)
        link = vm.link
        for number in range(count):
            mark = bytes([number % 251 + 1])
            traffic: list[asyncio.Future[Any]] = [asyncio.create_task(loop_back(link, VSOCK_PORT, mark * 300_000))]
            traffic += [Agent(link).info() for _ in range(5)]
            # Some of the traffic gets through before the cut, somewhere in a frame.
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
            await asyncio.sleep(chance.random() / 20)
            await link.aclose()
            await asyncio.gather(*traffic, return_exceptions=True)
            link = await relink(vm, link.sentinel)
            assert (await Agent(link).info()).agent_version
            fresh = bytes([(number + 1) % 251 + 1]) * 1000
            assert await loop_back(link, VSOCK_PORT, fresh) == fresh
            assert link.error is None
        await link.aclose()


async def test_reconnects_never_mix_bytes(store: ImageStore, busybox_image: Image) -> None:
    await check_reconnects(store, busybox_image, 20)
    assert busybox_image.layers


@pytest.mark.soak
async def test_two_hundred_reconnects_never_mix_bytes(store: ImageStore, busybox_image: Image) -> None:
    await check_reconnects(store, busybox_image, 200)
    assert busybox_image.layers


async def test_a_hostile_guest_is_named_and_a_new_connection_heals_it(store: ImageStore, busybox_image: Image) -> None:
    async with resumed(store, busybox_image, "firkin.test=1") as vm:
        link = vm.link
        for data, reason in ATTACKS.values():
            if len(data) > 32_768:
                continue  # the test agent writes one element of the port's queue
            with pytest.raises(LinkError, match="the peer broke the protocol") as caught:
                await Agent(link).write_file("/.firkin-test/raw", data)
            assert reason in str(caught.value)
            assert caught.value.outcome_unknown
            link = await relink(vm, link.sentinel)
            assert (await Agent(link).info()).agent_version
        await link.aclose()


async def test_an_agent_that_hangs_is_given_up_with_the_boot_log(store: ImageStore, busybox_image: Image) -> None:
    async with resumed(store, busybox_image, "firkin.test=1") as vm:
        await vm.link.aclose()
        link = await relink(vm, vm.link.sentinel, ping_limit=1.0)
        with pytest.raises(LinkError, match="has not answered for 1 s") as caught:
            await Agent(link).write_file("/.firkin-test/hang", b"")
        assert "vminitd: ready" in caught.value.boot_log
        assert caught.value.outcome_unknown


async def test_an_agent_that_aborts_ends_every_call_with_the_boot_log(store: ImageStore, busybox_image: Image) -> None:
    async with resumed(store, busybox_image, "firkin.test=1") as vm:
        calls = [vm.agent.write_file("/.firkin-test/abort", b""), vm.agent.info()]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, LinkError) and error.outcome_unknown for error in errors)
        await vm.wait_closed()
        assert "Kernel panic" in vm.boot_log_tail()


async def test_a_killed_vm_fails_every_call_at_once(store: ImageStore, busybox_image: Image) -> None:
    errors: list[Any] = []

    async def kill(vm: VirtualMachine) -> None:
        async with process(vm.agent, "sleeps", "cat") as (_, stdout):
            calls = [vm.agent.wait_process("sleeps", "init") for _ in range(10)]
            reading = asyncio.create_task(stdout.read())
            await vm.agent.sync()
            await vm.kill()
            errors.extend(await asyncio.gather(*calls, reading, return_exceptions=True))

    async with resumed(store, busybox_image) as vm:
        with pytest.raises(LinkError, match="wait process"):
            await kill(vm)
    assert len(errors) == 11
    assert all(isinstance(error, LinkError) for error in errors)
    assert all(error.outcome_unknown for error in errors[:10])
