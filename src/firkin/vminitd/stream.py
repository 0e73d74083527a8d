"""One stream of the guest link as asyncio users see it, and the listener that gives such streams."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from firkin.errors import LinkError, StateError, StreamResetError

if TYPE_CHECKING:
    from firkin.vminitd.link import Link

__all__ = ["BACKLOG", "Listener", "Stream"]

_ECANCELED: Final = 125
_ECONNREFUSED: Final = 111
_EPIPE: Final = 32
# Small pieces are joined up to this size: a peer that sends single bytes shall not cost more memory than its credit.
_JOIN: Final = 8192
BACKLOG: Final = 128


class Stream:
    """A byte stream each way, each with its own end. Not for use by two readers at a time; what several write is mixed.

    `async with stream:` closes it orderly at the block's end, and resets it when an exception leaves the block. Reading
    and writing raise `StreamResetError` after the peer's RESET, `LinkError` when the link ended.
    """

    def __init__(self, link: Link, port: int) -> None:
        self._link = link
        self.port = port
        # Its number on the link (docs/protocol.md, section 2); set by whoever opened it.
        self.number = 0
        # Called once when the stream is reset or its link ends.
        self.on_lost: Callable[[], object] | None = None
        self._chunks: deque[bytes | bytearray | memoryview] = deque()
        self._ended = False
        self._sent_end = False
        self._closed = False
        self._error: LinkError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        # Told what is read, b"" at the end, as it is read.
        self.followers: list[Callable[[bytes], None]] = []

    def __repr__(self) -> str:
        return f"<Stream {self.number} port={self.port:#x}>"

    @property
    def over(self) -> bool:
        """Whether the peer has ended or reset it, or the link is gone: what it had sent may still be there to read."""
        return self._ended or self._error is not None

    # ---- reading

    async def read(self, limit: int = 65536) -> bytes:
        """Wait for bytes and return at most `limit` of them; b"" at the peer's END."""
        while not self._chunks:
            if self._ended:
                return self._told(b"")
            if self._error is not None:
                raise self._failure()
            self._reader = self._link.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        chunk = self._chunks[0]
        if len(chunk) <= limit:
            self._chunks.popleft()
        else:
            view = memoryview(chunk)
            self._chunks[0] = view[limit:]
            chunk = view[:limit]
        self._link.consumed(self.number, len(chunk))
        return self._told(bytes(chunk))

    def _told(self, data: bytes) -> bytes:
        for follower in tuple(self.followers):
            follower(data)
        return data

    async def readexactly(self, count: int) -> bytes:
        """Wait for `count` bytes. Raises `asyncio.IncompleteReadError`, with what there was, at an earlier END."""
        parts: list[bytes] = []
        missing = count
        while missing:
            part = await self.read(missing)
            if not part:
                raise asyncio.IncompleteReadError(b"".join(parts), count)
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # ---- writing

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, waiting for credit as needed. Raises `StateError` after `end`."""
        if self._sent_end:
            raise StateError(f"stream to port {self.port:#x}: written to after its end")
        # What is queued must not change under us; bytes can't.
        view = memoryview(data if isinstance(data, bytes) else bytes(data))
        while True:
            if self._error is not None:
                raise self._failure()
            view = view[self._link.send(self.number, view) :]
            if not view:
                return
            waiter = self._link.loop.create_future()
            self._writers.append(waiter)
            self._link.wants_room(self)
            try:
                await waiter
            finally:
                self._writers.remove(waiter)

    async def end(self) -> None:
        """Say that nothing more is sent (half-close); what was written goes first. Reading goes on."""
        if not self._sent_end:
            self._sent_end = True
            if self._error is None:
                self._link.end(self.number)

    # ---- leaving

    def reset(self, errno: int = _ECANCELED) -> None:
        """Give the stream up at once, both ways; the peer sees `errno`. Does nothing on a stream that is gone."""
        self._closed = True
        if self._error is None and not (self._ended and self._sent_end):
            self._link.reset(self.number, errno)
            self.reset_received(errno)

    def close(self) -> None:
        """Let go of the stream as of a socket: END after what was written; if the peer still sends, it is reset."""
        if self._closed or self._error is not None:
            return
        self._closed = True
        unread = bool(self._chunks)
        self._chunks.clear()
        if unread and not self._ended:
            self.reset(_EPIPE)
        elif not self._sent_end:
            self._sent_end = True
            self._link.end(self.number)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.reset()

    # ---- what the link tells (firkin.vminitd.link.Handler)

    def data_received(self, data: bytes) -> None:
        """DATA came."""
        if self._closed:
            # Nobody will read it. The peer should know, like a program that writes into a closed pipe.
            self._link.reset(self.number, _EPIPE)
            self.reset_received(_EPIPE)
            return
        chunks = self._chunks
        if chunks and len(chunks[-1]) + len(data) <= _JOIN:
            last = chunks[-1]
            if not isinstance(last, bytearray):
                last = chunks[-1] = bytearray(last)
            last += data
        else:
            chunks.append(data)
        self._wake(self._reader)

    def end_received(self) -> None:
        """The peer's END came."""
        self._ended = True
        self._wake(self._reader)

    def reset_received(self, errno: int) -> None:
        """The peer's RESET came."""
        self.link_lost(StreamResetError(f"stream to port {self.port:#x} was reset: {_errno_text(errno)}", errno=errno))

    def room_made(self) -> None:
        """More may be sent."""
        for writer in self._writers:
            self._wake(writer)

    def link_lost(self, error: LinkError) -> None:
        """The link, or this stream, ended with `error`. What had come before can still be read."""
        if self._error is not None:
            return
        self._error = error
        self._wake(self._reader)
        for writer in self._writers:
            self._wake(writer)
        if self.on_lost is not None:
            self.on_lost()

    def _failure(self) -> LinkError:
        """An exception of this reader's or writer's own: one that two tasks raise would mix their tracebacks."""
        assert self._error is not None
        if isinstance(self._error, StreamResetError):
            return StreamResetError(self._error.message, errno=self._error.errno or 0)
        error = LinkError(self._error.message, hint=self._error.hint, boot_log=self._error.boot_log)
        error.__cause__ = self._error
        return error

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Listener:
    """Takes the streams that the peer opens to one port. `async with` or `close` ends it."""

    def __init__(self, link: Link, port: int, backlog: int = BACKLOG) -> None:
        self._link = link
        self.port = port
        self._backlog = backlog
        self._queue: deque[Stream] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    async def accept(self) -> Stream:
        """Wait for the next stream. Raises `StateError` once closed, `LinkError` when the link ended."""
        while not self._queue:
            if self._closed:
                if self._link.error is not None:
                    raise LinkError(self._link.error.message, boot_log=self._link.error.boot_log) from self._link.error
                raise StateError(f"port {self.port:#x} is not listened on any more")
            waiter: asyncio.Future[None] = self._link.loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # Woken and cancelled at once: the wake-up belongs to the next in line.
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self._queue.popleft()

    def close(self) -> None:
        """Listen no more: streams that nobody accepted are reset with ECONNREFUSED, waiting `accept`s raise."""
        if self._closed:
            return
        self._closed = True
        self._link.forget_listener(self)
        while self._queue:
            self._queue.popleft().reset(_ECONNREFUSED)
        while self._waiters:
            self._wake_one()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def offer(self, stream: Stream) -> bool:
        """The peer opened `stream`; false where too many wait already."""
        if len(self._queue) >= self._backlog:
            return False
        self._queue.append(stream)
        self._wake_one()
        return True

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


def _errno_text(number: int) -> str:
    import errno
    import os

    name = errno.errorcode.get(number)
    return f"{os.strerror(number)} ({name})" if name else f"errno {number}"
