"""Joining streams to sockets of this host: Unix sockets into and out of the guest, and whatever else has both ends.

Each direction ends on its own (half-close); a reset on one side is a reset on the other.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Final, Self

from firkin.errors import LinkError, StreamResetError
from firkin.vminitd.link import Link
from firkin.vminitd.stream import Listener, Stream

__all__ = ["relay_from_guest", "relay_into_guest", "relay_socket"]

_CHUNK: Final = 32_752
_ACCEPT_AGAIN: Final = 0.1


async def relay_socket(stream: Stream, sock: socket.socket) -> None:
    """Copy both ways between `stream` and `sock` until both directions have ended; both are closed then.

    `sock` must be connected; it is made non-blocking. Returns as well when either side breaks off; the other sees that
    as a reset.
    """
    sock.setblocking(False)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_inward(stream, sock))
            group.create_task(_outward(stream, sock))
    except* (StreamResetError, LinkError):
        # Closing with SO_LINGER 0 makes it a reset for TCP; a Unix socket just closes.
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except* OSError as broken:
        stream.reset(next((e.errno or 0 for e in broken.exceptions if isinstance(e, OSError)), 0) or errno.EIO)
    finally:
        sock.close()
        stream.reset()


async def _inward(stream: Stream, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(sock, _CHUNK):
        await stream.write(data)
    await stream.end()


async def _outward(stream: Stream, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await stream.read():
        await loop.sock_sendall(sock, data)
    with suppress(OSError):  # it may be closed the other way too by now
        sock.shutdown(socket.SHUT_WR)


async def relay_into_guest(link: Link, port: int, listening: socket.socket) -> None:
    """Serve the listening socket `listening`: each connection becomes a stream to the guest's `port`.

    Runs until cancelled, or until the link ends (`LinkError`). `listening` is closed then.
    """
    listening.setblocking(False)
    loop = asyncio.get_running_loop()
    with listening:
        async with _Relays() as relays:
            while True:
                try:
                    sock, _ = await loop.sock_accept(listening)
                except OSError:
                    # Too many open files, or a client that has gone: the others are served when there is room again.
                    await asyncio.sleep(_ACCEPT_AGAIN)
                    continue
                try:
                    stream = await link.open(port)
                except LinkError:
                    sock.close()
                    raise
                relays.add(relay_socket(stream, sock))


async def relay_from_guest(listener: Listener, connect: Callable[[], Awaitable[socket.socket]]) -> None:
    """Serve the guest's streams of `listener`: each is joined to the socket that `connect` gives.

    An `OSError` of `connect` resets that stream with its errno. Runs until cancelled, or until the link ends
    (`LinkError`).
    """

    async def join(stream: Stream) -> None:
        try:
            sock = await connect()
        except OSError as error:
            stream.reset(error.errno or errno.ECONNREFUSED)
            return
        await relay_socket(stream, sock)

    async with listener, _Relays() as relays:
        while True:
            relays.add(join(await listener.accept()))


class _Relays:
    """The relays under way; leaving the block cancels them. Unlike a TaskGroup it does not end when one fails."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, relay: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(relay)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
