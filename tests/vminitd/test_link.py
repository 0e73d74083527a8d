"""Links, streams and listeners over a socket pair."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from firkin.errors import LinkError, StateError, StreamResetError
from firkin.vminitd.framing import Framing
from firkin.vminitd.link import ANY_SCHEMA, FIRST_PORT, INITIAL_SENTINEL, LAST_PORT, Link
from firkin.vminitd.stream import Stream
from firkin.vminitd.wire import Answer, Hello


@asynccontextmanager
async def links(**options: Any) -> AsyncIterator[tuple[Link, Link]]:
    """A host's and a guest's link."""
    host_end, guest_end = socket.socketpair()
    accepting = asyncio.create_task(Link.accept(guest_end))
    host = await Link.connect(host_end, schema=ANY_SCHEMA, **options)
    guest = await accepting
    try:
        yield host, guest
    finally:
        await host.aclose()
        await guest.aclose()


async def stream_pair(host: Link, guest: Link) -> tuple[Stream, Stream]:
    """The two ends of one stream, opened by the host."""
    async with guest.listen(5) as listener:
        near = await host.open(5)
        return near, await listener.accept()


async def drain(stream: Stream) -> bytes:
    """Everything up to END."""
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def test_bytes_go_both_ways_and_each_way_ends_on_its_own() -> None:
    async with links() as (host, guest):
        near, far = await stream_pair(host, guest)
        await near.write(b"question")
        await near.end()
        assert await drain(far) == b"question"
        await far.write(bytearray(b"answer"))
        await far.end()
        assert await near.readexactly(6) == b"answer"
        assert await near.read() == b""
        with pytest.raises(StateError, match="after its end"):
            await near.write(b"more")


@pytest.mark.parametrize("count", [1, 16])
async def test_much_data_in_many_streams_has_the_same_hash(count: int) -> None:
    size = (16 << 20) // count

    async def send(stream: Stream) -> bytes:
        total = hashlib.sha256()
        for number in range(size // 65536):
            block = hashlib.sha256(b"%d %d" % (stream.number, number)).digest() * 2048
            total.update(block)
            await stream.write(block)
        await stream.end()
        return total.digest()

    async def receive(stream: Stream) -> bytes:
        total = hashlib.sha256()
        while data := await stream.read():
            total.update(data)
        return total.digest()

    async with links() as (host, guest):
        pairs = [await stream_pair(host, guest) for _ in range(count)]
        jobs = [job for near, far in pairs for job in (send(near), receive(far), send(far), receive(near))]
        hashes = await asyncio.gather(*jobs)
        assert hashes[::4] == hashes[1::4]
        assert hashes[2::4] == hashes[3::4]


async def test_the_guest_dials_the_host() -> None:
    async with links() as (host, guest):
        port = host.allocate_port()
        async with host.listen(port) as listener, await guest.open(port) as dialled:
            await dialled.write(b"stdout")
            await dialled.end()
            stream = await listener.accept()
            assert stream.port == port
            assert await drain(stream) == b"stdout"


async def test_a_port_without_a_listener_is_refused() -> None:
    async with links() as (host, _guest):
        stream = await host.open(77)
        with pytest.raises(StreamResetError) as caught:
            await stream.read()
        assert caught.value.errno == 111
        assert isinstance(caught.value, ConnectionResetError)


async def test_a_closed_listener_refuses_what_nobody_accepted() -> None:
    async with links() as (host, guest):
        listener = guest.listen(5)
        waiting = asyncio.create_task(guest.listen(6).accept())
        stream = await host.open(5)
        await asyncio.wait_for(_opened(guest), 5)
        listener.close()
        with pytest.raises(StreamResetError):
            await stream.read()
        with pytest.raises(StateError, match="not listened on"):
            await listener.accept()
        await guest.aclose()
        with pytest.raises(LinkError, match="closed"):
            await waiting


async def _opened(link: Link) -> None:
    """Wait until a stream of the peer's has arrived: a stream of our own goes there and back behind it."""
    probe = await link.open(1)
    with pytest.raises(StreamResetError):
        await probe.read()


async def test_a_port_is_listened_on_once() -> None:
    async with links() as (host, _guest):
        listener = host.listen(9)
        with pytest.raises(StateError, match="listened on already"):
            host.listen(9)
        listener.close()
        assert host.listen(9).port == 9


async def test_reset_reaches_the_peer_with_its_errno_and_leaves_no_stream() -> None:
    async with links() as (host, guest):
        near, far = await stream_pair(host, guest)
        near.reset(32)
        with pytest.raises(StreamResetError) as caught:
            await far.read()
        assert caught.value.errno == 32
        with pytest.raises(StreamResetError):
            await far.write(b"x")
        assert near._link._framing.streams == 0
        assert far._link._framing.streams == 0


async def test_what_came_before_the_end_is_read_where_sending_fails() -> None:
    async with links() as (host, guest):
        near, far = await stream_pair(host, guest)
        # So that sending is the first to notice.
        host.loop.remove_reader(host._sock)
        await far.write(b"last words")
        await far.end()
        await guest.aclose()
        await near.write(b"too late")
        await host.wait_closed()
        assert await drain(near) == b"last words"
        assert host.error is not None
        assert "the other side closed it" in host.error.message


async def test_a_writer_learns_that_the_reader_closed() -> None:
    async with links() as (host, guest):
        near, far = await stream_pair(host, guest)
        near.close()
        assert await far.read() == b""
        await far.write(b"into the void")
        # More than the stream's credit: what is left waits until the reset comes.
        with pytest.raises(StreamResetError) as caught:
            await far.write(bytes(1 << 20))
        assert caught.value.errno == 32


async def test_cancelled_reads_and_writes_lose_nothing() -> None:
    async with links() as (host, guest):
        near, far = await stream_pair(host, guest)
        reading = asyncio.create_task(near.read())
        await asyncio.sleep(0)
        reading.cancel()
        writing = asyncio.create_task(far.write(b"a" * 65536 + b"b" * 65536))
        await asyncio.sleep(0)
        writing.cancel()
        assert await near.readexactly(65536) == b"a" * 65536
        await far.write(b"c")
        rest = await near.read()
        assert rest.strip(b"b") == b"c"


async def test_a_block_left_by_an_exception_resets_the_stream() -> None:
    async with links() as (host, guest):
        near, far = await stream_pair(host, guest)
        with pytest.raises(RuntimeError):
            async with near:
                raise RuntimeError
        with pytest.raises(StreamResetError) as caught:
            await far.read()
        assert caught.value.errno == 125


async def test_a_dead_link_fails_everybody_with_its_reason_and_the_boot_log() -> None:
    async with links(boot_log=lambda: "Kernel panic") as (host, guest):
        near, _far = await stream_pair(host, guest)
        reading = asyncio.create_task(near.read())
        accepting = asyncio.create_task(host.listen(8).accept())
        await asyncio.sleep(0)
        await guest.aclose()
        for task in (reading, accepting):
            with pytest.raises(LinkError, match="the other side closed it") as caught:
                await task
            assert caught.value.boot_log == "Kernel panic"
        await host.wait_closed()
        assert host.error is not None
        with pytest.raises(LinkError):
            await host.open(5)


async def test_data_that_came_before_the_end_can_still_be_read() -> None:
    async with links() as (host, guest):
        near, far = await stream_pair(host, guest)
        await far.write(b"last words")
        await _opened(guest)
        await guest.aclose()
        await host.wait_closed()
        assert await near.read() == b"last words"
        with pytest.raises(LinkError):
            await near.read()


async def test_ports_are_of_the_own_range_and_free() -> None:
    async with links() as (host, _guest):
        host._next_port = LAST_PORT - 1
        ports = [host.listen(host.allocate_port()).port for _ in range(3)]
        assert ports == [LAST_PORT - 1, FIRST_PORT, FIRST_PORT + 1]


async def test_no_answer_to_the_hello_is_an_error_with_a_limit() -> None:
    near, far = socket.socketpair()
    with far, pytest.raises(LinkError, match="no answer to the HELLO"):
        await Link.connect(near, timeout=0.05)
    assert near.fileno() == -1


async def test_another_schema_is_refused_by_name() -> None:
    near, far = socket.socketpair()
    accepting = asyncio.create_task(Link.accept(far, schema=b"s" * 16))
    with pytest.raises(LinkError, match=f"schema {(b's' * 16).hex()}"):
        await Link.connect(near)
    await (await accepting).aclose()


async def test_another_major_is_refused_by_name() -> None:
    near, far = socket.socketpair()
    with far:
        link = Link.begin(near)
        hello = Hello.decode(far.recv(64))
        assert hello is not None
        far.sendall(Answer(hello.nonce, major=2, status=1).encode())
        with pytest.raises(LinkError, match="protocol version 2"):
            await link.handshake()


async def test_streams_may_start_before_the_hello_is_answered() -> None:
    near, far = socket.socketpair()
    host = Link.begin(near, schema=ANY_SCHEMA)
    stream = await host.open(1024)
    await stream.write(b"hello")
    guest = await Link.accept(far)
    assert host.peer is None
    # Accepting happened in the same turn of the loop as the frames behind the HELLO: nobody listened yet.
    await host.handshake()
    with pytest.raises(StreamResetError):
        await stream.read()
    await host.aclose()
    await guest.aclose()


async def test_a_new_hello_resets_the_streams_of_the_connection_before() -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    loop = asyncio.get_running_loop()
    accepting = asyncio.create_task(Link.accept(far))
    first = Hello(INITIAL_SENTINEL)
    framing = Framing.host(first)
    await loop.sock_sendall(near, framing.take())
    guest = await accepting
    listener = guest.listen(5)
    framing.feed(await loop.sock_recv(near, 64))
    framing.open(5)
    await loop.sock_sendall(near, framing.take())
    stream = await listener.accept()
    await loop.sock_sendall(near, b"FK half a frame" + Hello(first.next_sentinel).encode())
    with pytest.raises(StreamResetError) as caught:
        await stream.read()
    assert caught.value.errno == 104
    near.close()
    await guest.wait_closed()
