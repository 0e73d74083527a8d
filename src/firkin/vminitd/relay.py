"""Copying between streams and descriptors of this process: stdio of kind INHERIT.

The descriptors are somebody else's (a terminal, a pipe, a file), so they are used as they are: O_NONBLOCK would change
them for every process that shares them, and epoll refuses files. What could block is done by a thread of its own for
each descriptor, a daemon: one stuck in a write to a reader that stopped keeps neither the loop nor the exit waiting.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from firkin.errors import FirkinError, StreamResetError
from firkin.vminitd.stream import Stream

__all__ = ["copy_fd_to_stream", "copy_stream_to_fd"]

T = TypeVar("T")

# What can be written without blocking to a descriptor that poll(2) says is writable, by its kind: a pipe has room for
# PIPE_BUF bytes (pipe(7)), a terminal for fewer; a regular file goes to the page cache.
_DIRECT: Final = {stat.S_IFIFO: select.PIPE_BUF, stat.S_IFCHR: 256, stat.S_IFREG: 65536}
_CHUNK: Final = 32_752


class _Worker:
    """Runs functions one after the other in a daemon thread, which starts with the first."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any] | None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def do(self, function: Callable[[], T]) -> T:
        """Run `function` in the thread. Cancelled, the caller goes on; the function is not interrupted."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="firkin-relay", daemon=True)
            self._thread.start()
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((function, future))
        return await future

    def stop(self, last: Callable[[], object] = bool) -> None:
        """Let the thread end after what it does now, and after `last`."""
        if self._thread is None:
            last()
        else:
            self._jobs.put((last, None))

    def _run(self) -> None:
        while True:
            function, future = self._jobs.get()
            try:
                result, error = function(), None
            except OSError as caught:
                result, error = None, caught
            if future is None:
                return
            try:
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                # The loop was closed: nobody waits. Only the last job is still to be done.
                continue


def _settle(future: asyncio.Future[Any], result: object, error: OSError | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            # Somebody who shares the descriptor made it non-blocking.
            select.select([], [fd], [])


def _writable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


async def copy_stream_to_fd(stream: Stream, fd: int) -> int:
    """Write what comes from `stream` to `fd` until the peer's END and return how many bytes that was.

    Everything is written when this returns. `fd` stays open and its flags as they are. A reader of `fd` that has gone
    (EPIPE) resets the stream, so that the guest's process learns of it, and is no error; another failure raises
    `FirkinError`. The peer's RESET, or the link's end, raises what the stream raises.
    """
    direct = _DIRECT.get(stat.S_IFMT(os.fstat(fd).st_mode), 0)
    worker = _Worker()
    total = 0
    try:
        while data := await stream.read():
            if len(data) <= direct and _writable(fd):
                _write_all(fd, data)
            else:
                await worker.do(lambda data=data: _write_all(fd, data))  # type: ignore[misc]
            total += len(data)
    except OSError as error:
        if isinstance(error, StreamResetError):
            raise
        stream.reset(error.errno or errno.EIO)
        if error.errno != errno.EPIPE:
            raise FirkinError(f"output to descriptor {fd} can't be written: {error.strerror}") from error
    finally:
        worker.stop()
    return total


def _read(fd: int, wake: int) -> bytes:
    """Wait for `fd` to be readable and read a chunk; b"" at its end, or when `wake` becomes readable."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if wake in ready:
            return b""
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            continue
        except OSError as error:
            # A terminal that hung up, or no descriptor at all: the input has ended.
            if error.errno in (errno.EIO, errno.EBADF):
                return b""
            raise


async def copy_fd_to_stream(fd: int, stream: Stream, through: Callable[[bytes], bytes] | None = None) -> int:
    """Send what can be read from `fd` to `stream`, then END; return how many bytes that was.

    `through` may change what is sent, or raise to end this.

    Ends early, without an error, when the peer resets the stream: its process wants no more. `fd` stays open.
    Cancelling this stops the reading; at most one chunk that was read is then lost. Raises `FirkinError` where `fd`
    can't be read.
    """
    try:
        os.fstat(fd)
    except OSError:
        # A program started with its input closed. The pipe below would take the number.
        await stream.end()
        return 0
    worker = _Worker()
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC)
    stream.on_lost = lambda: os.write(wake_write, b".")
    total = 0
    try:
        while data := await worker.do(lambda: _read(fd, wake_read)):
            await stream.write(through(data) if through else data)
            total += len(data)
        await stream.end()
    except StreamResetError:
        return total
    except OSError as error:
        stream.reset(error.errno or errno.EIO)
        raise FirkinError(f"input from descriptor {fd} can't be read: {error.strerror}") from error
    finally:
        stream.on_lost = None
        # Its end wakes the thread from poll(2), which then closes the other one.
        os.close(wake_write)
        worker.stop(lambda: os.close(wake_read))
    return total
