"""The private loop thread on which the sync face drives the asyncio engine."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError as FutureCancelledError
from typing import Any, TypeVar

__all__ = ["Engine", "engine"]

_T = TypeVar("_T")


class Engine:
    """One asyncio loop on one daemon thread; `call` runs a coroutine there and waits for its result.

    A `KeyboardInterrupt` in the waiting thread cancels the coroutine and waits until it has cleaned up.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, name="firkin-engine", daemon=True)
        self._thread.start()

    @property
    def usable(self) -> bool:
        """False after a fork: the child has no such thread."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run `work` on the engine's loop; its result, or its exception."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("the sync API was called on Firkin's own loop thread; use AsyncContainer there")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            with contextlib.suppress(FutureCancelledError, TimeoutError):
                future.result(timeout=30)
            raise

    def shut(self) -> None:
        """Cancel what still runs, let it clean up, and end the thread."""
        if not self.usable:
            return
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)


async def _cancel_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


_engine: Engine | None = None
_engine_lock = threading.Lock()


def engine() -> Engine:
    """The process's engine, started at the first use."""
    global _engine
    with _engine_lock:
        if _engine is None or not _engine.usable:
            _engine = Engine()
            atexit.register(_engine.shut)
        return _engine
