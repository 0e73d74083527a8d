"""An agent that dies, hangs, or writes what it should not: the host ends every call, in time, and says why."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from firkin.errors import FirkinError, FirkinTimeoutError, LinkError, StreamResetError
from firkin.oci import Image, ImageStore
from firkin.vminitd._generated import agent_pb2 as pb
from tests.agent.guest import Guest, booted

pytestmark = pytest.mark.vm
TESTING = "firkin.test=1"


@asynccontextmanager
async def hostile(store: ImageStore, image: Image) -> AsyncIterator[Guest]:
    async with booted(store, image, cmdline=TESTING) as guest:
        yield guest


async def test_a_dead_agent_ends_every_call(store: ImageStore, busybox_image: Image) -> None:
    async with hostile(store, busybox_image) as guest:
        waiting = guest.start(["sleep", "1000"])
        await waiting.created
        began = time.monotonic()
        dying = guest.vm.agent.submit(pb.WriteFile(path="/.firkin-test/abort"))
        for call in (dying, waiting.exited):
            with pytest.raises(FirkinError):
                await asyncio.wait_for(call, 20)
        assert time.monotonic() - began < 20
        await asyncio.wait_for(guest.vm.wait_closed(), 20)
        assert "Attempted to kill init" in guest.vm.boot_log_tail()


async def test_a_hung_agent_is_told_from_a_slow_one(store: ImageStore, busybox_image: Image) -> None:
    async with hostile(store, busybox_image) as guest:
        hung = guest.vm.agent.submit(pb.WriteFile(path="/.firkin-test/hang"))
        with pytest.raises((LinkError, FirkinTimeoutError)):
            await asyncio.wait_for(hung, 60)
        with pytest.raises(FirkinError):
            await guest.call(pb.Info(), 5)


@pytest.mark.parametrize(
    "wire",
    [b"garbage " * 100, b"FK\x02\x00" + b"\xff" * 64, bytes(64)],
    ids=["no frame", "checksum", "zeros"],
)
async def test_a_guest_that_breaks_the_protocol_is_named(store: ImageStore, busybox_image: Image, wire: bytes) -> None:
    async with hostile(store, busybox_image) as guest:
        pending = guest.vm.agent.submit(pb.WaitProcess(container="c", process="init"))
        with pytest.raises(LinkError):
            await guest.call(pb.WriteFile(path="/.firkin-test/raw", content=wire))
        with pytest.raises(LinkError) as caught:
            await asyncio.wait_for(pending, 10)
        assert caught.value.outcome_unknown


async def test_ports_that_measure_the_link_are_flow_controlled(store: ImageStore, busybox_image: Image) -> None:
    async with hostile(store, busybox_image) as guest:
        stalled = await guest.vm.link.open(19)
        async with await guest.vm.link.open(9) as discard:
            await discard.write(bytes(3 << 20))
            await discard.end()
            assert await discard.read() == b""
        async with await guest.vm.link.open(19) as source:
            assert await source.readexactly(3 << 20) == bytes(3 << 20)
            source.reset()
        assert await stalled.readexactly(1 << 20) == bytes(1 << 20)
        stalled.reset()
        assert (await guest.run("echo", "alive")).stdout == b"alive\n"


async def test_without_the_kernel_parameter_nobody_listens(store: ImageStore, busybox_image: Image) -> None:
    async with booted(store, busybox_image) as guest:
        for port in (9, 19):
            with pytest.raises(StreamResetError) as caught:
                await (await guest.vm.link.open(port)).read()
            assert caught.value.errno in (errno.ECONNREFUSED, errno.ECONNRESET)


async def test_without_the_kernel_parameter_it_is_a_file(store: ImageStore, busybox_image: Image) -> None:
    async with booted(store, busybox_image) as guest:
        await guest.call(pb.WriteFile(path="/.firkin-test/abort", content=b"x", create_parents=True))
        assert (await guest.call(pb.Stat(path="/.firkin-test/abort"))).size == 1
