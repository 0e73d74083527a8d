"""Bytes between the event loop and a thread that may block on disks: a bounded queue, one writer and one reader."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from firkin.errors import StateError
from firkin.quiet import quiet

__all__ = ["Channel", "Closed", "beside"]

T = TypeVar("T")

# What may wait in a channel; a copy's memory does not grow beyond it.
_ROOM: Final = 1 << 20
# How long a cancelled copy waits for its thread, which may hang in a write to somebody's pipe.
_LAST_LIMIT: Final = 5.0


class Closed(Exception):
    """The other side wants no more."""


class Channel:
    """`put` and `readinto` are a thread's, `send` and `receive` the loop's; the ends are `end` and `fail`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._chunks: deque[memoryview] = deque()
        self._held = 0
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    # ---- the thread

    def put(self, data: bytes) -> None:
        """Queue `data`, waiting for room. Raises what `fail` was told."""
        with self._changed:
            while self._held >= _ROOM and self._error is None:
                self._changed.wait()
            self._check()
            self._add(data)
            self._wake()

    def readinto(self, target: memoryview) -> int:
        """Wait for bytes and fill `target` with what is there; 0 at the end. Raises what `fail` was told."""
        with self._changed:
            while not self._chunks and not self._ended and self._error is None:
                self._changed.wait()
            self._check()
            done = 0
            while self._chunks and done < len(target):
                chunk = self._chunks[0][: len(target) - done]
                target[done : done + len(chunk)] = chunk
                done += len(chunk)
                self._chunks[0] = self._chunks[0][len(chunk) :]
                if not self._chunks[0]:
                    self._chunks.popleft()
            self._held -= done
            if self._held < _ROOM // 2:
                self._wake()
            return done

    def read(self, size: int, /) -> bytes:
        """As `readinto`, for those who have no buffer: at most `size` bytes, fewer at any time."""
        buffer = bytearray(min(size, _ROOM))
        return bytes(memoryview(buffer)[: self.readinto(memoryview(buffer))])

    # ---- the loop

    async def send(self, data: bytes) -> None:
        """Queue `data`, waiting for room. Raises `Closed` once the thread has ended."""
        while True:
            with self._changed:
                if self._ended or self._error is not None:
                    raise Closed
                if self._held < _ROOM:
                    self._add(data)
                    self._changed.notify_all()
                    return
                waiter = self._waiter = self._loop.create_future()
            await waiter

    async def receive(self) -> list[memoryview]:
        """Wait for bytes and take all of them; nothing at the end. Raises what `fail` was told."""
        while True:
            with self._changed:
                self._check()
                if self._chunks or self._ended:
                    chunks, self._held = list(self._chunks), 0
                    self._chunks.clear()
                    self._changed.notify_all()
                    return chunks
                waiter = self._waiter = self._loop.create_future()
            await waiter

    # ---- both

    def end(self) -> None:
        """Nothing more comes, or is read."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Both sides stop: with `error`, unless there was one already."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
            self._wake()

    def _add(self, data: bytes) -> None:
        if data:
            self._chunks.append(memoryview(data))
            self._held += len(data)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            # A loop that was closed has nobody who waits.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, waiter)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def beside(channel: Channel, moving: Coroutine[Any, Any, object], work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own and `moving`, the channel's other side, here; the result of `work`.

    Where one fails the other stops, and the first failure is raised once both have. Cancelling waits for the thread.
    """
    loop = asyncio.get_running_loop()
    # Nobody may be left to ask for its error.
    result: asyncio.Future[T] = quiet(loop.create_future())

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, error = None, None
        try:
            value = work()
            channel.end()
        except BaseException as caught:  # noqa: BLE001 - it is the caller's, on another thread
            error = caught
            channel.fail(caught)
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, value, error)

    # A daemon: one that hangs in somebody's file keeps neither the loop nor the exit waiting.
    threading.Thread(target=run, name="firkin-copy", daemon=True).start()
    try:
        # The thread's own failure is the reason where its side was closed.
        with suppress(Closed):
            await moving
        return await asyncio.shield(result)
    except BaseException as error:
        channel.fail(StateError("the copy was cancelled") if isinstance(error, asyncio.CancelledError) else error)
        await asyncio.wait([result], timeout=_LAST_LIMIT)
        raise
