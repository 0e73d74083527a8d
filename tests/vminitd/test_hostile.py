"""Peers that mean harm: every fault is named, memory and time stay bounded, nothing else is touched."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import time
from pathlib import Path

import pytest

from firkin.errors import LinkError
from firkin.vminitd import events as ev
from firkin.vminitd.agent import Agent
from firkin.vminitd.control import SOCKET_NAME, ControlClient, ControlServer
from firkin.vminitd.framing import Framing
from firkin.vminitd.link import ANY_SCHEMA, INITIAL_SENTINEL, Link
from firkin.vminitd.wire import (
    CREDIT,
    DATA,
    END,
    HEADER,
    MAGIC,
    OPEN,
    PING,
    RESET,
    Hello,
    control_frame,
    data_header,
)


def bad_crc() -> bytes:
    frame = bytearray(control_frame(PING, 0, b"12345678"))
    frame[12] ^= 1
    return bytes(frame)


def header(kind: int, flags: int, stream: int, length: int) -> bytes:
    """A header with a right crc and anything in it."""
    import zlib

    head = HEADER.pack(MAGIC, kind, flags, stream, length, 0)[:12]
    return head + zlib.crc32(head).to_bytes(4, "little")


OPENED = control_frame(OPEN, 2, 0x1000_0000)

ATTACKS = {
    "oversized frame": (header(DATA, 0, 1, 32_753), "32753 bytes"),
    "frame of 4 GiB": (header(DATA, 0, 1, 0xFFFF_FFFF), "4294967295 bytes"),
    "empty DATA": (header(DATA, 0, 1, 0), "DATA frame of 0 bytes"),
    "wrong crc": (bad_crc(), "wrong crc"),
    "no magic": (b"GET / HTTP/1.1\r\n\r\n", "0x4547 where a frame"),
    "flags": (header(PING, 1, 0, 8) + bytes(8), "flags 0x01"),
    "unknown type": (header(99, 0, 0, 0), "unknown type 99"),
    "stream that never was": (data_header(999, 1) + b"x", "stream 999, which was never opened"),
    "stream of the wrong side": (control_frame(OPEN, 3, 5), "OPEN of stream 3"),
    "stream used twice": (OPENED + OPENED, "OPEN of stream 2"),
    "credit of nothing": (OPENED + control_frame(CREDIT, 2, 0), "CREDIT of 0 bytes"),
    "credit of 4 GiB": (OPENED + control_frame(CREDIT, 2, 0xFFFF_FFFF), "CREDIT of 4294967295"),
    "credit too often": (OPENED + control_frame(CREDIT, 2, 1 << 20), "lifts the window of stream 2"),
    "connection credit": (control_frame(CREDIT, 0, 1 << 20), "lifts the window of stream 0"),
    "more than its credit": (
        OPENED + (data_header(2, 32_752) + bytes(32_752)) * 3,
        "more DATA than the credit of stream 2",
    ),
    "DATA after END": (OPENED + control_frame(END, 2) + data_header(2, 1) + b"x", "DATA after END"),
    "END twice": (OPENED + control_frame(END, 2) * 2, "second END"),
    "RESET of nothing": (control_frame(RESET, 7, 5), "stream 7, which was never opened"),
    "a HELLO back": (Hello(INITIAL_SENTINEL).encode(), "where a frame"),
}


async def victim() -> tuple[Agent, socket.socket]:
    """A host that finished its handshake, and the guest's end of its socket. It listens on one port."""
    near, far = socket.socketpair()
    far.setblocking(False)
    guest = Framing.guest(INITIAL_SENTINEL)
    link = Link.begin(near, schema=ANY_SCHEMA)
    loop = asyncio.get_running_loop()
    guest.feed(await loop.sock_recv(far, 65536))
    await loop.sock_sendall(far, guest.take())
    await link.handshake()
    link.listen(0x1000_0000)
    return Agent(link), far


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_fault_of_the_guest_ends_the_link_and_is_named(attack: str) -> None:
    data, reason = ATTACKS[attack]
    agent, far = await victim()
    call = agent.sync()
    await asyncio.get_running_loop().sock_sendall(far, data)
    with pytest.raises(LinkError, match="the peer broke the protocol") as caught:
        await call
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    far.close()


async def test_half_a_hello_answer_and_then_silence_runs_into_the_limit() -> None:
    near, far = socket.socketpair()
    guest = Framing.guest(INITIAL_SENTINEL)
    link = Link.begin(near, schema=ANY_SCHEMA)
    guest.feed(far.recv(64))
    far.sendall(guest.take()[:40])
    with pytest.raises(LinkError, match=r"no answer to the HELLO within 0\.05 s"):
        await link.handshake(0.05)
    far.close()


async def test_a_flood_before_the_answer_takes_no_memory() -> None:
    near, far = socket.socketpair()
    far.setblocking(False)
    link = Link.begin(near, schema=ANY_SCHEMA)
    flood = asyncio.create_task(_flood(far, os.urandom(1 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LinkError, match="no answer"):
        await link.handshake(0.5)
    sent = await flood
    assert sent > 16 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10
    far.close()


async def _flood(sock: socket.socket, data: bytes) -> int:
    """Send `data` again and again until the other side closes; how many bytes went."""
    loop = asyncio.get_running_loop()
    sent = 0
    try:
        while True:
            await loop.sock_sendall(sock, data)
            sent += len(data)
    except OSError:
        return sent


async def test_a_flood_of_pings_that_reads_no_answer_is_a_fault() -> None:
    agent, far = await victim()
    flood = asyncio.create_task(_flood(far, control_frame(PING, 0, b"12345678") * 2000))
    await asyncio.wait_for(agent.link.wait_closed(), 30)
    assert "floods the link" in str(agent.link.error)
    # What the socket holds, and the limit of 1 MiB of answers.
    assert await flood < 8 << 20
    far.close()


async def test_a_flood_of_streams_is_refused_past_the_limits() -> None:
    agent, far = await victim()
    loop = asyncio.get_running_loop()
    opens = b"".join(control_frame(OPEN, 2 * number, 0x1000_0000) for number in range(1, 3001))
    await loop.sock_sendall(far, opens)
    answers = b""
    while answers.count(control_frame(RESET, 0, 0)[:3]) < 3000 - 128:
        answers += await loop.sock_recv(far, 1 << 20)
    assert agent.link._framing.streams == 128
    assert agent.link.error is None
    await agent.link.aclose()
    far.close()


async def test_single_bytes_that_nobody_reads_cost_little_more_than_their_credit() -> None:
    agent, far = await victim()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(far, OPENED + (data_header(2, 1) + b"x") * 65_536)
    listener = agent.link._listeners[0x1000_0000]
    stream = await listener.accept()
    await loop.sock_sendall(far, control_frame(PING, 0, b"all here"))
    answers = b""
    while b"all here" not in answers:
        answers += await loop.sock_recv(far, 65_536)
    assert sum(len(chunk) for chunk in stream._chunks) == 65_536
    assert len(stream._chunks) <= 65_536 // 4096
    await agent.link.aclose()
    far.close()


def mutate_and_feed(chance: random.Random) -> None:
    """Traffic with a few bytes changed, cut out or doubled: the host takes it, or names a fault and then is deaf."""
    hello = Hello(INITIAL_SENTINEL)
    guest = Framing.guest(INITIAL_SENTINEL)
    guest.feed(Framing.host(hello).take())
    answer = guest.take()
    for _ in range(6):
        guest.send(guest.open(0x1000_0000), memoryview(chance.randbytes(chance.randrange(1, 40_000))))
    traffic = guest.take()
    for _ in range(40):
        host = Framing.host(hello)
        host.take()
        host.feed(answer)
        mutated = bytearray(traffic)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(mutated))
            match chance.randrange(3):
                case 0:
                    mutated[at] ^= 1 << chance.randrange(8)
                case 1:
                    del mutated[at : at + chance.randrange(1, 64)]
                case 2:
                    mutated[at:at] = mutated[at : at + chance.randrange(1, 64)]
        events = host.feed(mutated)
        faults = [event for event in events if isinstance(event, ev.Faulted)]
        assert len(faults) <= 1
        assert not faults or (events[-1] is faults[0] and host.feed(traffic) == [] and host.streams == 0)


@pytest.mark.parametrize("seed", range(20))
def test_mutated_traffic_is_events_or_one_fault(seed: int) -> None:
    mutate_and_feed(random.Random(seed))
    assert seed < 20


@pytest.mark.soak
def test_mutated_traffic_for_long() -> None:
    """`FIRKIN_FUZZ_SECONDS` (default 300) of it; a failure names its seed."""
    end = time.monotonic() + float(os.environ.get("FIRKIN_FUZZ_SECONDS", "300"))
    seed = time.time_ns()
    while time.monotonic() < end:
        seed += 1
        try:
            mutate_and_feed(random.Random(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    assert seed


# ---- the owner's side: hostile clients of the control socket


async def raw_client(folder: Path) -> socket.socket:
    """A connection to the control socket that has said nothing yet."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, str(folder / SOCKET_NAME))
    return sock


@pytest.mark.parametrize(
    "attack", [name for name in ATTACKS if name not in ("stream of the wrong side", "a HELLO back")]
)
async def test_a_fault_of_a_control_client_ends_only_its_connection(attack: str, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with ControlServer(tmp_path, {}), await ControlClient.connect(tmp_path) as bystander:
        sock = await raw_client(tmp_path)
        data = ATTACKS[attack][0].replace(OPENED, control_frame(OPEN, 1, 1024))
        await loop.sock_sendall(sock, Hello(INITIAL_SENTINEL).encode())
        assert len(await loop.sock_recv(sock, 64)) == 64
        await loop.sock_sendall(sock, data)
        while True:
            try:
                if not await loop.sock_recv(sock, 65536):
                    break
            except ConnectionResetError:
                break
        assert bystander.link.error is None
        sock.close()


async def test_a_control_client_that_says_nothing_does_not_keep_others_waiting(tmp_path: Path) -> None:
    async with ControlServer(tmp_path, {}):
        silent = [await raw_client(tmp_path) for _ in range(20)]
        async with await ControlClient.connect(tmp_path) as client:
            assert client.link.error is None
        for sock in silent:
            sock.close()
