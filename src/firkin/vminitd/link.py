"""The guest link on asyncio: one socket, many streams (docs/protocol.md).

The socket is read and written from the event loop's callbacks, without a task: a frame costs no task switch, and
nothing is copied into a transport's buffer. What arrives for a stream goes to its `Handler`, which is a `Stream` for
most users and the call itself for RPC.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final, Protocol

from firkin.errors import LinkError, StateError
from firkin.frozen import dataclass
from firkin.vminitd import events as ev
from firkin.vminitd.framing import Framing
from firkin.vminitd.liveness import Liveness
from firkin.vminitd.stream import BACKLOG, Listener, Stream
from firkin.vminitd.trace import tracer
from firkin.vminitd.wire import INITIAL_SENTINEL, MAJOR, Answer, Hello

__all__ = ["ANY_SCHEMA", "FIRST_PORT", "INITIAL_SENTINEL", "LAST_PORT", "RPC_PORT", "Handler", "Link", "Peer"]

RPC_PORT: Final = 1024
FIRST_PORT: Final = 0x1000_0000
LAST_PORT: Final = 0x2000_0000
# For `schema`: talk to a peer of whatever schema (a snapshot's agent may be older than this library).
ANY_SCHEMA: Final = b""

_ECONNREFUSED: Final = 111
_ECONNRESET: Final = 104
# Reads per callback, so that a busy link lets other tasks run.
_READS: Final = 8
# So often that much when sending has failed: nothing more can come, but from who is not to be trusted.
_LAST_READS: Final = 64


class Handler(Protocol):
    """Who is told what arrives on one stream. None of these may block or raise."""

    def data_received(self, data: bytes) -> None:
        """At most 32,752 bytes came; `Link.consumed` gives their credit back."""

    def end_received(self) -> None:
        """The peer sends no more."""

    def reset_received(self, errno: int) -> None:
        """The stream is gone."""

    def room_made(self) -> None:
        """More may be sent; only told to those who asked."""

    def link_lost(self, error: LinkError) -> None:
        """The link ended, and the stream with it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What the guest said of itself: its schema's hash and its kernel's boot id (16 bytes each), protocol version."""

    schema: bytes
    boot_id: bytes
    version: tuple[int, int]


class Link:
    """One connection to a guest agent, or (guest role) to one client of a control socket.

    Made by `connect` (host role) or `accept` (guest role). `sentinel` is the one that the next HELLO on this port must
    begin with. `error` is the `LinkError` that ended the link, None while it lives. While `paused` is true (the VM does
    not run) the peer's silence is not judged.
    """

    def __init__(
        self,
        sock: socket.socket,
        framing: Framing,
        *,
        sentinel: bytes,
        schema: bytes = ANY_SCHEMA,
        boot_log: Callable[[], str] | None = None,
        ping_limit: float = 10.0,
    ) -> None:
        sock.setblocking(False)
        self.loop = asyncio.get_running_loop()
        self.sentinel = sentinel
        self.error: LinkError | None = None
        self.peer: Peer | None = None
        self._sock = sock
        self._framing = framing
        self._trace = tracer()
        self._schema = schema
        self._boot_log = boot_log
        self._handlers: dict[int, Handler] = {}
        self._listeners: dict[int, Listener] = {}
        self._starved: list[Handler] = []
        self._next_port = FIRST_PORT
        self._flush_scheduled = False
        self._writer_added = False
        self._established: asyncio.Future[None] = self.loop.create_future()
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._liveness = Liveness(ping_limit)
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self.loop.add_reader(sock, self._on_readable)
        self._flush()

    # ---- making one

    @classmethod
    def begin(
        cls,
        sock: socket.socket,
        *,
        sentinel: bytes = INITIAL_SENTINEL,
        lost_sentinel: bytes | None = None,
        schema: bytes | None = None,
        boot_log: Callable[[], str] | None = None,
        ping_limit: float = 10.0,
        greeted: tuple[Framing, Hello] | None = None,
    ) -> Link:
        """Send HELLO on `sock` (a connected stream socket, owned by the link from now on) and return without waiting.

        Streams and calls may be started at once: they travel right behind the HELLO. `handshake` waits for its answer.
        `lost_sentinel` is the `sentinel` of an earlier link of which nobody knows whether its HELLO arrived. `schema`
        is what the peer must speak: this library's own by default, or `ANY_SCHEMA`. `boot_log` gives the tail of the
        guest's console for the error that ends the link. A peer silent for `ping_limit` seconds during a call is dead.
        `greeted`: a framing whose HELLO was sent on `sock` already, before there was an event loop.
        """
        if schema is None:
            from firkin.vminitd._generated.schema import AGENT_SCHEMA

            schema = AGENT_SCHEMA
        hello = Hello(sentinel)
        framing = Framing.host(hello, lost=lost_sentinel)
        if greeted is not None:
            framing, hello = greeted
        return cls(sock, framing, sentinel=hello.next_sentinel, schema=schema, boot_log=boot_log, ping_limit=ping_limit)

    @classmethod
    async def connect(
        cls,
        sock: socket.socket,
        *,
        sentinel: bytes = INITIAL_SENTINEL,
        lost_sentinel: bytes | None = None,
        schema: bytes | None = None,
        boot_log: Callable[[], str] | None = None,
        ping_limit: float = 10.0,
        timeout: float = 5.0,
    ) -> Link:
        """`begin` and `handshake`: a link that the peer answered."""
        link = cls.begin(
            sock,
            sentinel=sentinel,
            lost_sentinel=lost_sentinel,
            schema=schema,
            boot_log=boot_log,
            ping_limit=ping_limit,
        )
        await link.handshake(timeout)
        return link

    @classmethod
    async def accept(
        cls,
        sock: socket.socket,
        *,
        sentinel: bytes = INITIAL_SENTINEL,
        schema: bytes = bytes(16),
        boot_id: bytes = bytes(16),
        timeout: float = 5.0,
    ) -> Link:
        """The guest's role on `sock`: wait for a HELLO and answer it, saying `schema` and `boot_id` (16 bytes each)."""
        framing = Framing.guest(sentinel, schema=schema, boot_id=boot_id)
        link = cls(sock, framing, sentinel=sentinel)
        await link.handshake(timeout)
        return link

    async def handshake(self, timeout: float = 5.0) -> None:
        """Wait for the peer's half of the handshake. Raises `LinkError`, and ends the link, where it doesn't come.

        `timeout` is in seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._established)
        except TimeoutError:
            message = f"guest link: no answer to the HELLO within {timeout:g} s"
            self.abort(LinkError(message, hint="is it the VM's current sentinel, and the only client of the port?"))
        except asyncio.CancelledError:
            self.abort(LinkError("guest link: the handshake was cancelled"))
            raise
        if self.error is not None:
            raise self.error

    # ---- streams

    async def open(self, port: int) -> Stream:
        """Open a stream to the peer's `port` (u32). Where nobody listens, reading raises `StreamResetError`."""
        stream = Stream(self, port)
        stream.number = self.start(port, stream)
        return stream

    def start(self, port: int, handler: Handler) -> int:
        """Open a stream to the peer's `port` for `handler`; its number. Raises `LinkError` on an ended link."""
        if self.error is not None:
            raise LinkError(self.error.message, hint=self.error.hint, boot_log=self.error.boot_log) from self.error
        number = self._framing.open(port)
        self._handlers[number] = handler
        self._schedule_flush()
        return number

    def listen(self, port: int, *, backlog: int = BACKLOG) -> Listener:
        """Take the streams that the peer opens to `port` (u32), `backlog` of which may wait.

        Raises `StateError` where somebody does already, `LinkError`.
        """
        if self.error is not None:
            raise LinkError(self.error.message, hint=self.error.hint, boot_log=self.error.boot_log) from self.error
        if port in self._listeners:
            raise StateError(f"port {port:#x} is listened on already")
        listener = self._listeners[port] = Listener(self, port, backlog)
        return listener

    def allocate_port(self) -> int:
        """A port of the library's own range that nobody listens on, and that was not given out for long.

        Raises `StateError`.
        """
        for _ in range(len(self._listeners) + 1):
            port = self._next_port
            self._next_port = port + 1 if port < LAST_PORT - 1 else FIRST_PORT
            if port not in self._listeners:
                return port
        raise StateError("guest link: every port is in use")

    # ---- the end

    def abort(self, error: LinkError) -> None:
        """End the link because of `error`: all streams and calls fail with it at once."""
        if self.error is not None:
            return
        if self._boot_log is not None and not error.boot_log:
            error.boot_log = self._boot_log()
        self.error = error
        self.loop.remove_reader(self._sock)
        if self._writer_added:
            self.loop.remove_writer(self._sock)
        self._sock.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        handlers, self._handlers = list(self._handlers.values()), {}
        self._starved.clear()
        for handler in handlers:
            handler.link_lost(error)
        for listener in list(self._listeners.values()):
            listener.close()
        for future in (self._established, self._closed):
            if not future.done():
                future.set_result(None)

    async def aclose(self) -> None:
        """End the link; whoever still uses it sees a `LinkError`.

        What was written goes out as far as the socket takes it now.
        """
        self._flush()
        self.abort(LinkError("guest link: closed"))

    async def wait_closed(self) -> None:
        """Wait until the link has ended; `error` says why."""
        await asyncio.shield(self._closed)

    # ---- silence

    @property
    def paused(self) -> bool:
        """Whether the VM is known not to run, so that its silence means nothing."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        self._paused = value
        self._watch()

    def call_begun(self) -> None:
        """Somebody waits for an answer: from now on a silent peer is pinged, and in the end given up."""
        self._liveness.waiting += 1
        if self._timer is None:
            self._watch()

    def call_ended(self) -> None:
        """The answer came, or is not wanted any more."""
        self._liveness.waiting -= 1

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.error is None and self._liveness.waiting and not self._paused:
            self._liveness.start(self.loop.time())
            self._timer = self.loop.call_later(self._liveness.interval, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._liveness.waiting or self.error is not None:
            return
        verdict = self._liveness.tick(self.loop.time())
        if verdict == "dead":
            message = f"guest link: the guest has not answered for {self._liveness.limit:g} s"
            self.abort(LinkError(message, hint="it hangs, or the host is overloaded"))
            return
        if verdict == "ping" and self._framing.established:
            self._framing.ping(os.urandom(8))
            self._schedule_flush()
        self._timer = self.loop.call_later(self._liveness.interval, self._tick)

    # ---- for handlers

    def send(self, number: int, data: memoryview) -> int:
        """Queue what credit allows of `data`, which must not change; the bytes taken (docs: `Framing.send`)."""
        count = self._framing.send(number, data)
        if count:
            self._schedule_flush()
        return count

    def wants_room(self, handler: Handler) -> None:
        """`handler` could not send all: it is told when the queue has room; credit is always told."""
        if not self._framing.queue_has_room:
            self._starved.append(handler)

    def end(self, number: int) -> None:
        """Send no more on the stream."""
        self._framing.end(number)
        if not self._framing.is_open(number):
            self._handlers.pop(number, None)
        self._schedule_flush()

    def reset(self, number: int, errno: int) -> None:
        """Give the stream up; its handler is told nothing more."""
        self._handlers.pop(number, None)
        self._framing.reset(number, errno)
        self._schedule_flush()

    def consumed(self, number: int, count: int) -> None:
        """`count` bytes that the handler got have been used."""
        if self._framing.consumed(number, count):
            self._schedule_flush()

    def forget_listener(self, listener: Listener) -> None:
        """`listener` was closed."""
        if self._listeners.get(listener.port) is listener:
            del self._listeners[listener.port]

    # ---- the socket

    def _schedule_flush(self) -> None:
        """Write at the end of this turn of the loop: what several callers queue then goes out in one system call."""
        if not self._flush_scheduled and not self._writer_added:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self.error is not None:
            return
        try:
            while buffers := self._framing.pull():
                count = self._sock.sendmsg(buffers, (), socket.MSG_NOSIGNAL)
                if self._trace is not None:
                    self._trace[0].saw(buffers, count)
                self._framing.advance(count)
        except (BlockingIOError, InterruptedError):
            if not self._writer_added:
                self._writer_added = True
                self.loop.add_writer(self._sock, self._flush)
        except OSError as error:
            # What the other side sent before it closed counts: the answer to a call, say.
            for _ in range(_LAST_READS):
                if self.error is not None or not self._on_readable():
                    break
            self._lost("guest link: sending failed", error)
            return
        else:
            if self._writer_added:
                self._writer_added = False
                self.loop.remove_writer(self._sock)
        if self._starved and self._framing.queue_has_room:
            starved, self._starved = self._starved, []
            for handler in starved:
                handler.room_made()

    def _on_readable(self) -> bool:
        """Take what has come; whether there may be more."""
        for _ in range(_READS):
            try:
                buffer = self._framing.buffer()
                count = self._sock.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                self._lost("guest link: receiving failed", error)
                return False
            if count == 0:
                self._lost("guest link: the other side closed it", None)
                return False
            if self._trace is not None:
                self._trace[1].saw((buffer,), count)
            self._liveness.heard(self.loop.time())
            for event in self._framing.received(count):
                self._dispatch(event)
                if self.error is not None:
                    return False
            self._schedule_flush()
        return True

    def _lost(self, what: str, cause: OSError | None) -> None:
        error = LinkError(f"{what}: {cause.strerror}" if cause is not None else what, hint="did the VM end?")
        error.__cause__ = cause
        self.abort(error)

    def _dispatch(self, event: ev.Event) -> None:
        match event:
            case ev.DataReceived(number, data):
                handler = self._handlers.get(number)
                if handler is not None:
                    handler.data_received(data)
            case ev.Credited(number, _):
                handler = self._handlers.get(number)
                if handler is not None:
                    handler.room_made()
            case ev.StreamOpened(number, port):
                self._opened(number, port)
            case ev.StreamEnded(number):
                handler = self._handlers.get(number)
                if not self._framing.is_open(number):
                    self._handlers.pop(number, None)
                if handler is not None:
                    handler.end_received()
            case ev.StreamReset(number, errno):
                handler = self._handlers.pop(number, None)
                if handler is not None:
                    handler.reset_received(errno)
            case ev.Established(answer):
                self._answered(answer)
            case ev.Greeted(hello, refused):
                self._greeted(hello, refused)
            case ev.Faulted(_, reason):
                self.abort(LinkError(f"guest link: the peer broke the protocol: {reason}"))

    def _opened(self, number: int, port: int) -> None:
        stream = Stream(self, port)
        stream.number = number
        listener = self._listeners.get(port)
        if listener is None or not listener.offer(stream):
            self._framing.reset(number, _ECONNREFUSED)
            return
        self._handlers[number] = stream

    def _answered(self, answer: Answer) -> None:
        if answer.status != 0 or answer.major != MAJOR:
            message = f"guest link: the guest speaks protocol version {answer.major}, this side {MAJOR}"
            self.abort(LinkError(message, hint="use an agent of this version of Firkin"))
            return
        if self._schema and answer.schema != self._schema:
            message = f"guest link: the guest speaks schema {answer.schema.hex()}, this side {self._schema.hex()}"
            self.abort(LinkError(message, hint="use an agent of this version of Firkin"))
            return
        self.peer = Peer(answer.schema, answer.boot_id, (answer.major, answer.minor))
        if not self._established.done():
            self._established.set_result(None)

    def _greeted(self, hello: Hello, refused: bool) -> None:
        """Guest role: a new host is there; the streams of the one before are gone."""
        handlers, self._handlers = list(self._handlers.values()), {}
        self._starved.clear()
        for handler in handlers:
            handler.reset_received(_ECONNRESET)
        self.sentinel = hello.next_sentinel
        if not refused and not self._established.done():
            self.peer = Peer(bytes(16), bytes(16), (hello.major, hello.minor))
            self._established.set_result(None)
