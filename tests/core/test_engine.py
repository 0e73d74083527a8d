"""The loop thread behind the sync calls."""

from __future__ import annotations

import asyncio
import threading

import pytest

from firkin.core.engine import Engine


async def thread() -> threading.Thread:
    return threading.current_thread()


async def from_within(engine: Engine) -> threading.Thread:
    return engine.call(thread())


def test_calls_run_on_a_thread_of_its_own_and_not_from_there() -> None:
    engine = Engine()
    try:
        assert engine.call(thread()) is not threading.current_thread()
        with pytest.raises(RuntimeError, match="use AsyncContainer there"):
            engine.call(from_within(engine))
    finally:
        engine.shut()


def test_what_still_runs_cleans_up_before_the_end() -> None:
    engine = Engine()
    done: list[str] = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            done.append("cleaned up")

    async def begin() -> asyncio.Task[None]:
        task = asyncio.create_task(long())
        await asyncio.sleep(0)
        return task

    task = engine.call(begin())
    engine.shut()
    assert done == ["cleaned up"]
    assert task.cancelled()
    assert not engine.usable
    # A second time, and after a fork, there is nothing to end.
    engine.shut()
