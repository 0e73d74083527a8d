"""Calls over the link: one stream each, a message each way (docs/protocol.md, section 5). No protobuf in here.

A message is a u32 length, at most 1,048,576, and that many bytes. The calling side is `Caller`, which keeps calls in
the order in which they were made; the answering side is `serve`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

from firkin.errors import FirkinTimeoutError, InvalidInputError, LinkError, StreamResetError
from firkin.vminitd.link import RPC_PORT, Link
from firkin.vminitd.stream import Stream
from firkin.vminitd.trace import call_ended

__all__ = ["MAX_MESSAGE", "Call", "Caller", "serve"]

MAX_MESSAGE: Final = 1 << 20
_ECANCELED: Final = 125
_EBADMSG: Final = 74
# Errnos of a RESET that say that the call never began: nobody listens, too many streams.
_NEVER_BEGUN: Final = (111, 24)

T = TypeVar("T")


class Call(asyncio.Future[T], Generic[T]):
    """The answer to come. Its request is queued already; awaiting it is all that is left to do.

    Cancelling it, or the task that awaits it, resets its stream: the peer then abandons the work. Raises what the
    peer's error says, `FirkinTimeoutError`, or `LinkError`, the latter two with `outcome_unknown` where the request
    had been sent.
    """

    def __init__(
        self,
        caller: Caller,
        name: str,
        request: bytes,
        decode: Callable[[bytes], T],
        timeout: float | None,
    ) -> None:
        super().__init__(loop=caller.link.loop)
        self._caller = caller
        self._name = name
        self._decode = decode
        self._unsent = memoryview(len(request).to_bytes(4, "little") + request)
        self._answer = bytearray()
        # The stream's number; 0 before it is opened and after it is gone.
        self._number = 0
        self._timeout = timeout
        self._timer = self._loop.call_later(timeout, self._expired) if timeout is not None else None
        self._begun = self._loop.time()
        self.add_done_callback(Call._settled)
        caller.link.call_begun()

    def _settled(self) -> None:
        """Whatever the end was: leave nothing behind."""
        if self._timer is not None:
            self._timer.cancel()
        number, self._number = self._number, 0
        if number:
            self._caller.link.reset(number, _ECANCELED)
        self._caller.finished(self)
        # Of calls sent in one go only the first failure may be awaited; the others' must not be reported as lost.
        error = asyncio.CancelledError("nobody waits any more") if self.cancelled() else self.exception()
        call_ended(self._name, self._loop.time() - self._begun, error)

    def _fail(self, error: BaseException) -> None:
        if not self.done():
            self.set_exception(error)

    def _expired(self) -> None:
        sent = self._number != 0
        limit = f"{self._timeout:g} s"
        self._fail(FirkinTimeoutError(f"{self._name}: no answer within {limit}", outcome_unknown=sent))

    # ---- the request

    def push(self) -> bool:
        """Queue what is left of the request; false where credit stopped it, so that later calls must wait."""
        link = self._caller.link
        if not self._number:
            self._number = link.start(RPC_PORT, self)
        self._unsent = self._unsent[link.send(self._number, self._unsent) :]
        if self._unsent:
            link.wants_room(self)
            return False
        link.end(self._number)
        return True

    # ---- what the link tells (firkin.vminitd.link.Handler)

    def data_received(self, data: bytes) -> None:
        """A part of the answer."""
        answer = self._answer
        answer += data
        if len(answer) >= 4:
            size = int.from_bytes(answer[:4], "little")
            if size > MAX_MESSAGE or len(answer) > 4 + size:
                self._fail(LinkError(f"{self._name}: a malformed answer", outcome_unknown=True))
                return
        self._caller.link.consumed(self._number, len(data))

    def end_received(self) -> None:
        """The answer is whole."""
        if not self._unsent:
            self._number = 0
        answer = self._answer
        if len(answer) < 4 or len(answer) != 4 + int.from_bytes(answer[:4], "little"):
            self._fail(LinkError(f"{self._name}: the answer is cut short", outcome_unknown=True))
            return
        if self.done():
            return
        try:
            result = self._decode(bytes(answer[4:]))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this call's failure, not the link's
            self.set_exception(error)
        else:
            self.set_result(result)

    def reset_received(self, errno: int) -> None:
        """The peer abandoned the call."""
        self._number = 0
        begun = errno not in _NEVER_BEGUN
        text = f"{self._name}: the call was reset: {os.strerror(errno)}"
        self._fail(StreamResetError(text, errno=errno, outcome_unknown=begun))

    def room_made(self) -> None:
        """Credit came, or the queue has room."""
        self._caller.drain()

    def link_lost(self, error: LinkError) -> None:
        """The link ended under the call."""
        self._number = 0
        self._fail(_copy(self._name, error, outcome_unknown=True))

    def never_sent(self, error: LinkError) -> None:
        """The link ended before the call's turn came."""
        self._fail(_copy(self._name, error, outcome_unknown=False))


def _copy(name: str, error: LinkError, *, outcome_unknown: bool) -> LinkError:
    """An exception of this call's own for the end of the link, with the link's as its cause."""
    text = error.message.removeprefix("guest link: ")
    copy = LinkError(f"{name}: {text}", hint=error.hint, boot_log=error.boot_log, outcome_unknown=outcome_unknown)
    copy.__cause__ = error
    return copy


class Caller:
    """The calling side of one link. Requests go out in the order of `submit`, also where one waits for credit."""

    def __init__(self, link: Link) -> None:
        self.link = link
        # Calls whose requests are not wholly queued; only the first has a stream.
        self._backlog: deque[Call[Any]] = deque()

    @property
    def pending(self) -> int:
        """Calls whose request waits for credit."""
        return len(self._backlog)

    def submit(self, name: str, request: bytes, decode: Callable[[bytes], T], timeout: float | None) -> Call[T]:
        """Queue `request` and return the call; `decode` turns the answer's bytes into its result or raises.

        Raises `InvalidInputError` for a request above 1 MiB. `timeout` is in seconds.
        """
        if len(request) > MAX_MESSAGE:
            raise InvalidInputError(f"{name}: the request has {len(request)} bytes, at most {MAX_MESSAGE} can be sent")
        call = Call(self, name, request, decode, timeout)
        if self.link.error is not None:
            call.never_sent(self.link.error)
        elif self._backlog or not call.push():
            self._backlog.append(call)
        return call

    def drain(self) -> None:
        """Go on with the calls that wait, in their order."""
        backlog = self._backlog
        while backlog:
            first = backlog[0]
            if not first.done() and not first.push():
                return
            backlog.popleft()

    def finished(self, call: Call[Any]) -> None:
        """`call` has ended, one way or the other."""
        self.link.call_ended()
        if call in self._backlog:
            self._backlog.remove(call)
            if self.link.error is None:
                self.drain()
            elif self._backlog:
                # Those behind it have no stream yet, so that the link does not tell them. They tell one another.
                self._backlog[0].never_sent(self.link.error)


async def serve(
    link: Link,
    answer: Callable[[bytes], Awaitable[bytes]],
    *,
    reading: asyncio.Semaphore,
    read_limit: float = 10.0,
) -> None:
    """Answer calls on `link` until it ends, each in a task of its own: `answer` turns a request into its reply.

    A caller that gives up cancels its task. `reading` bounds how many requests are held in memory half received (at
    most 1 MiB each), for all links that share it; a request must be complete within `read_limit` seconds.
    """
    tasks: set[asyncio.Task[None]] = set()
    listener = link.listen(RPC_PORT)
    try:
        while True:
            try:
                stream = await listener.accept()
            except LinkError:
                return
            task = asyncio.create_task(_answer(stream, answer, reading, read_limit))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            stream.on_lost = task.cancel
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(
    stream: Stream,
    answer: Callable[[bytes], Awaitable[bytes]],
    reading: asyncio.Semaphore,
    read_limit: float,
) -> None:
    async with stream:
        try:
            async with reading, asyncio.timeout(read_limit):
                request = await _read_message(stream)
        except (asyncio.IncompleteReadError, TimeoutError, InvalidInputError):
            stream.reset(_EBADMSG)
            return
        reply = await answer(request)
        await stream.write(len(reply).to_bytes(4, "little") + reply)


async def _read_message(stream: Stream) -> bytes:
    size = int.from_bytes(await stream.readexactly(4), "little")
    if size > MAX_MESSAGE:
        raise InvalidInputError(f"a message of {size} bytes, at most {MAX_MESSAGE} can be sent")
    request = await stream.readexactly(size) if size else b""
    if await stream.read(1):
        raise InvalidInputError("bytes after the message")
    return request
