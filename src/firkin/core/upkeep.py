"""What an owner looks after while its container runs: the guest's clock, and the size of its console's log."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from firkin.errors import FirkinError

if TYPE_CHECKING:
    from firkin.vmm.machine import VirtualMachine

__all__ = ["Upkeep", "slept_ns"]

_log = logging.getLogger(__name__)
# Seconds between two looks at whether the host slept, and looks between two of the guest's clock: at 50 ppm, which is
# much for a drift, it is then off by 3 ms.
_LOOK = 2.0
_LOOKS = 30
# The first look at the clock: Resume set it, and the guest took its time to. What ends sooner is not held up by this.
_FIRST = 0.5
_TOLERANCE_NS = 5_000_000
# What is behind by more is set forward at once.
_BEHIND_NS = 50_000_000
_READINGS = 3
_READING_LIMIT = 30.0
# The agent slews by less than 500 ms at a time (SetTime). What is ahead by more than 2 s is set back at once, since
# slewing it, at 500 ppm, would take more than an hour.
_SLEWED_NS = 490_000_000
_MOST_AHEAD_NS = 2_000_000_000
_MOST_CONSOLE = 16 << 20


def slept_ns() -> int:
    """How long this host has been suspended since its boot."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Upkeep:
    """Works for as long as its `async with` block runs; a paused VM is left alone.

    `look` is in seconds, the clock is read at every `looks`th one. `slept` tells the host's suspensions in ns.
    """

    def __init__(
        self, vm: VirtualMachine, *, look: float = _LOOK, looks: int = _LOOKS, slept: Callable[[], int] = slept_ns
    ) -> None:
        self._vm = vm
        self._look = look
        self._looks = looks
        self._slept = slept
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        slept, look = self._slept(), -1
        while self._vm.link.error is None:
            await asyncio.sleep(self._look if look >= 0 else min(_FIRST, self._look))
            look += 1
            now = self._slept()
            woke = now - slept > _TOLERANCE_NS
            slept = now
            if self._vm.link.paused or not (woke or look % self._looks == 0):
                continue
            try:
                await self.correct_clock()
                await asyncio.to_thread(_bound, self._vm.folder.path / "boot.log")
            except FirkinError as error:
                # A guest that hangs is noticed by the link, which ends with the reason.
                _log.debug("the clock of VM %s was not looked at: %s", self._vm.name, error)

    async def offset_ns(self) -> tuple[int, int]:
        """How far the guest's clock is ahead of the host's, and by how much that may be wrong; of some readings the
        quickest."""
        found = []
        for _ in range(_READINGS):
            before = time.time_ns()
            inside = (await self._vm.agent.info(timeout=_READING_LIMIT)).realtime_ns
            took = time.time_ns() - before
            found.append((took // 2, inside - before - took // 2))
        error, ahead = min(found)
        return ahead, error

    async def correct_clock(self) -> None:
        """Slew the guest's clock towards the host's; step it forward where it is far behind."""
        ahead, error = await self.offset_ns()
        if abs(ahead) <= max(_TOLERANCE_NS, error):
            return
        _log.debug("the clock of VM %s is off by %.1f ms", self._vm.name, ahead / 1e6)
        target = time.time_ns()
        if _SLEWED_NS < ahead <= _MOST_AHEAD_NS:
            # Less at a time, so that it never goes back.
            target += ahead - _SLEWED_NS
        await self._vm.agent.set_time(target, slew=ahead > -_BEHIND_NS, timeout=_READING_LIMIT)


def _bound(console: Path) -> None:
    """QEMU appends to it: what is written next is at its new beginning."""
    with suppress(FileNotFoundError):
        if console.stat().st_size > _MOST_CONSOLE:
            os.truncate(console, 0)
