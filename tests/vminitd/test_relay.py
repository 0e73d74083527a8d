"""Streams joined to descriptors and sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import socket
import threading
from pathlib import Path

import pytest

from firkin.errors import FirkinError, StreamResetError
from firkin.vminitd.link import ANY_SCHEMA, Link
from firkin.vminitd.relay import copy_fd_to_stream, copy_stream_to_fd
from firkin.vminitd.socket_relay import relay_from_guest, relay_into_guest, relay_socket
from firkin.vminitd.stream import Stream


@contextlib.asynccontextmanager
async def streams(count: int = 1):
    """`count` streams, each as (near, far), and their links."""
    host_end, guest_end = socket.socketpair()
    accepting = asyncio.create_task(Link.accept(guest_end))
    host = await Link.connect(host_end, schema=ANY_SCHEMA)
    guest = await accepting
    try:
        async with guest.listen(5) as listener:
            yield [(await host.open(5), await listener.accept()) for _ in range(count)]
    finally:
        await host.aclose()
        await guest.aclose()


async def read_all(fd: int) -> bytes:
    """What can be read from `fd` until its end."""

    def read() -> bytes:
        parts = []
        with contextlib.suppress(OSError):  # EIO: the end of a terminal
            while data := os.read(fd, 65536):
                parts.append(data)
        return b"".join(parts)

    return await asyncio.to_thread(read)


async def drain(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def test_copies_bytes_and_the_reader_sees_the_end_when_the_writer_is_closed() -> None:
    """Counterpart of the seed's relay_stdio_stream_copies_bytes_and_closes_writer."""
    async with streams() as [(near, far)]:
        read_end, write_end = os.pipe()
        await far.write(b"inherited stdio\n")
        await far.end()
        assert await copy_stream_to_fd(near, write_end) == len(b"inherited stdio\n")
        os.close(write_end)
        assert await read_all(read_end) == b"inherited stdio\n"
        os.close(read_end)


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 5_000_000])
@pytest.mark.parametrize("kind", ["pipe", "file", "socket"])
async def test_output_is_complete_when_the_copy_returns(kind: str, size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    async with streams() as [(near, far)]:
        if kind == "file":
            read_end, write_end = (
                os.open(tmp_path / "out", os.O_CREAT | os.O_RDONLY),
                os.open(tmp_path / "out", os.O_WRONLY),
            )
        elif kind == "pipe":
            read_end, write_end = os.pipe()
        else:
            read_end, write_end = (end.detach() for end in socket.socketpair())
        flags = fcntl.fcntl(write_end, fcntl.F_GETFL)

        async def produce() -> None:
            await far.write(content)
            await far.end()

        async def copy() -> int:
            total = await copy_stream_to_fd(near, write_end)
            assert fcntl.fcntl(write_end, fcntl.F_GETFL) == flags
            os.close(write_end)
            return total

        copying = asyncio.create_task(copy())
        if kind == "file":
            await asyncio.gather(produce(), copying)
            got = await read_all(read_end)
        else:
            _, got, _ = await asyncio.gather(produce(), read_all(read_end), copying)
        assert copying.result() == size
        assert got == content
        os.close(read_end)


async def test_output_to_a_terminal() -> None:
    async with streams() as [(near, far)]:
        master, slave = pty.openpty()
        text = b"x" * 50_000
        reading = asyncio.create_task(read_all(master))
        await far.write(text)
        await far.end()
        assert await copy_stream_to_fd(near, slave) == len(text)
        os.close(slave)
        assert await reading == text
        os.close(master)


async def test_a_reader_that_has_gone_resets_the_stream_with_epipe() -> None:
    async with streams() as [(near, far)]:
        read_end, write_end = os.pipe()
        os.close(read_end)
        await far.write(b"y\n")
        assert await copy_stream_to_fd(near, write_end) == 0
        with pytest.raises(StreamResetError) as caught:
            await far.read()
        assert caught.value.errno == 32
        os.close(write_end)


async def test_a_full_disk_is_an_error_that_names_the_descriptor() -> None:
    async with streams() as [(near, far)]:
        full = os.open("/dev/full", os.O_WRONLY)
        await far.write(bytes(1000))
        with pytest.raises(FirkinError, match=f"output to descriptor {full} can't be written: No space left"):
            await copy_stream_to_fd(near, full)
        os.close(full)


async def test_a_reader_that_stops_stalls_neither_the_loop_nor_another_stream() -> None:
    async with streams(2) as [(stuck, stuck_far), (near, far)]:
        read_end, write_end = os.pipe()
        copying = asyncio.create_task(copy_stream_to_fd(stuck, write_end))
        filling = asyncio.create_task(stuck_far.write(bytes(1 << 20)))
        await far.write(b"lively")
        assert await near.readexactly(6) == b"lively"
        assert not copying.done()
        filling.cancel()
        copying.cancel()
        await asyncio.gather(filling, copying, return_exceptions=True)
        # The thread that is stuck in write(2) gets away when the reader goes.
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
@pytest.mark.parametrize("kind", ["pipe", "file"])
async def test_input_is_sent_whole_and_then_ends(kind: str, size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    async with streams() as [(near, far)]:
        if kind == "file":
            (tmp_path / "in").write_bytes(content)
            fd = os.open(tmp_path / "in", os.O_RDONLY)
        else:
            fd, write_end = os.pipe()

            def fill() -> None:
                view = memoryview(content)
                while view:
                    view = view[os.write(write_end, view) :]
                os.close(write_end)

            threading.Thread(target=fill).start()
        sent, got = await asyncio.gather(copy_fd_to_stream(fd, near), drain(far))
        assert sent == size
        assert got == content
        os.close(fd)


async def test_input_of_a_closed_descriptor_is_empty() -> None:
    async with streams() as [(near, far)]:
        fd = os.open("/dev/null", os.O_RDONLY)
        os.close(fd)
        assert await copy_fd_to_stream(fd, near) == 0
        assert await far.read() == b""


async def test_input_stops_when_the_peer_wants_no_more_and_when_cancelled() -> None:
    async with streams(2) as [(near, far), (other, _)]:
        read_end, write_end = os.pipe()
        copying = asyncio.create_task(copy_fd_to_stream(read_end, near))
        far.reset(32)
        assert await copying == 0
        copying = asyncio.create_task(copy_fd_to_stream(read_end, other))
        await asyncio.sleep(0)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        os.write(write_end, b"not stolen")
        assert os.read(read_end, 100) == b"not stolen"
        os.close(read_end)
        os.close(write_end)


async def test_a_socket_and_a_stream_are_joined_with_half_close() -> None:
    async with streams() as [(near, far)]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        relaying = asyncio.create_task(relay_socket(near, theirs))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, b"ping")
        ours.shutdown(socket.SHUT_WR)
        assert await drain(far) == b"ping"
        await far.write(b"pong")
        await far.end()
        assert await loop.sock_recv(ours, 100) == b"pong"
        assert await loop.sock_recv(ours, 100) == b""
        await relaying
        ours.close()


async def test_a_reset_stream_closes_the_socket_and_a_broken_socket_resets_the_stream() -> None:
    async with streams(2) as [(near, far), (other, other_far)]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        relaying = asyncio.create_task(relay_socket(near, theirs))
        far.reset()
        await relaying
        assert await asyncio.get_running_loop().sock_recv(ours, 100) == b""
        ours.close()
        ours, theirs = socket.socketpair()
        ours.close()
        await other_far.write(b"x")
        await relay_socket(other, theirs)
        with pytest.raises(StreamResetError):
            await other_far.write(bytes(1 << 20))


async def test_unix_sockets_into_and_out_of_the_guest(tmp_path: Path) -> None:
    host_end, guest_end = socket.socketpair()
    accepting = asyncio.create_task(Link.accept(guest_end))
    host = await Link.connect(host_end, schema=ANY_SCHEMA)
    guest = await accepting
    loop = asyncio.get_running_loop()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.write_eof()
        writer.close()

    async def connect(path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, str(path))
        except OSError:
            sock.close()
            raise
        return sock

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "in"))
    listening.listen()
    server = await asyncio.start_unix_server(echo, tmp_path / "service")
    relays = [
        asyncio.create_task(relay_into_guest(host, 7, listening)),
        asyncio.create_task(relay_from_guest(guest.listen(7), lambda: connect(tmp_path / "service"))),
        asyncio.create_task(relay_from_guest(guest.listen(8), lambda: connect(tmp_path / "missing"))),
    ]
    for number in range(5):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "in")
        writer.write(b"hello %d" % number)
        writer.write_eof()
        assert await reader.read() == b"HELLO %d" % number
        writer.close()
    refused = await host.open(8)
    with pytest.raises(StreamResetError) as caught:
        await refused.read()
    assert caught.value.errno == 2
    for relay in relays:
        relay.cancel()
    await asyncio.gather(*relays, return_exceptions=True)
    server.close()
    await host.aclose()
    await guest.aclose()
