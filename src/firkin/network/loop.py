"""One thread that waits for everything of one network: epoll, work from other threads, timers."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["Handler", "Loop"]

_T = TypeVar("_T")
Handler = Callable[[int], None]
_MOST_EVENTS = 256


class Loop:
    """Handlers by descriptor. Only `call` and `stop` may be used from other threads."""

    def __init__(self, before_wait: Callable[[], float | None], failed: Callable[[BaseException], None]) -> None:
        """`before_wait` is called each time around; it gives the longest wait in seconds, None for none."""
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._work: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._before_wait = before_wait
        self._failed = failed
        self._running = True
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="firkin-network", daemon=True)
        self.now = time.monotonic()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def watch(self, sock: socket.socket, mask: int, handler: Handler) -> None:
        """Call `handler` with the events of `sock`; with an empty mask not even for its hang-up."""
        fd = sock.fileno()
        if not mask:
            self.unwatch(sock)
        elif fd in self._handlers:
            self._handlers[fd] = handler
            self._epoll.modify(fd, mask)
        else:
            self._handlers[fd] = handler
            self._epoll.register(fd, mask)

    def unwatch(self, sock: socket.socket) -> None:
        """Call no handler for `sock` any more; it must not be closed yet."""
        if self._handlers.pop(sock.fileno(), None) is not None and not self._epoll.closed:
            self._epoll.unregister(sock.fileno())

    def call(self, work: Callable[[], _T]) -> _T:
        """Run `work` on the loop's thread and wait for its result. Raises `RuntimeError` once the loop has stopped."""
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where the work was asked for
                done.set_exception(error)

        with self._lock:
            if not self._running:
                raise RuntimeError("the network has ended")
            self._work.append(run)
            os.eventfd_write(self._wake, 1)
        return done.result()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        with self._lock:
            if not self._running:
                return
            self._running = False
            os.eventfd_write(self._wake, 1)
        if self._thread.ident is None:
            self._close()
        elif self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._running:
                limit = self._before_wait()
                events = self._epoll.poll(-1 if limit is None else max(limit, 0.001), _MOST_EVENTS)
                self.now = time.monotonic()
                for fd, mask in events:
                    if fd == self._wake:
                        os.eventfd_read(fd)
                    elif handler := self._handlers.get(fd):
                        handler(mask)
                while self._work:
                    self._work.popleft()()
        except BaseException as error:  # noqa: BLE001 - a broken network is told of, the thread can't raise
            self._failed(error)
        finally:
            with self._lock:
                self._running = False
                left = list(self._work)
            for work in left:
                work()
            self._close()

    def _close(self) -> None:
        self._epoll.close()
        os.close(self._wake)
