"""QEMU and its helpers, as this process sees them: their end is noticed at once, whoever waits for what."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from firkin.errors import VirtualMachineError

__all__ = ["Child", "QemuProcess", "tail"]

_T = TypeVar("_T")
_TAIL = 4096
# Seconds in which the end of a QEMU is noticed that its helpers have noticed.
_HANG_UP = 0.2


class Child:
    """One child. `ended` is done when it has ended and was reaped; its result is `Popen`'s return code.

    `what` names it in errors, `said` is where its stderr goes.
    """

    def __init__(self, child: subprocess.Popen[bytes], what: str, *, said: Path) -> None:
        self.pid = child.pid
        self.what = what
        self.said = said
        self._child = child
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(child.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._child.wait()
        if not self.ended.done():
            self.ended.set_result(code)

    @property
    def running(self) -> bool:
        """False once QEMU has ended."""
        return not self.ended.done()

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.running:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end; cancelling the wait leaves it running."""
        return await asyncio.shield(self.ended)

    async def end(self) -> None:
        """Kill it and wait until it is gone, also where the waiting task is cancelled meanwhile."""
        self.kill()
        cancelled: asyncio.CancelledError | None = None
        while not self.ended.done():
            try:
                await self.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def how_it_ended(self) -> str:
        """One line: how, and the last that it said."""
        code = self.ended.result()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        words = tail(self.said).strip().splitlines()
        return f"{self.what} {how}{f': {words[-1]}' if words else ''}"


class QemuProcess(Child):
    """A QEMU, its helpers, and where the guest's console goes. None of them is of use without the others.

    `on_miss` is called where a helper has ended by itself, just before QEMU is killed for it.
    """

    def __init__(
        self, child: subprocess.Popen[bytes], *, said: Path, console: Path, helpers: Sequence[Child] = ()
    ) -> None:
        super().__init__(child, "QEMU", said=said)
        self.console = console
        self._helpers = tuple(helpers)
        self._missed = ""
        self.on_miss: Callable[[VirtualMachineError], None] | None = None
        for helper in self._helpers:
            helper.ended.add_done_callback(partial(self._miss, helper))

    def _miss(self, helper: Child, _: asyncio.Future[int]) -> None:
        """A helper has ended: because QEMU has, which is known soon, or by itself.

        A guest whose share is gone would wait for it for ever: so QEMU ends, too, and `death` says why.
        """

        def look() -> None:
            if self.running:
                self._missed = self._missed or helper.how_it_ended()
                if self.on_miss:
                    self.on_miss(self.death())
                self.kill()

        self._loop.call_later(_HANG_UP, look)

    async def end(self) -> None:
        """Kill it and its helpers and wait until they are gone."""
        try:
            await super().end()
        finally:
            for helper in self._helpers:
                await helper.end()

    def death(self) -> VirtualMachineError:
        """The error of what was under way when it ended."""
        console = tail(self.console)
        panic = console.rpartition("Kernel panic - not syncing: ")[2] if "Kernel panic" in console else ""
        if self._missed:
            why = self._missed
        elif panic:
            # A kernel's panic begins with the reason; QEMU's last word is why it ended.
            why = f"the guest's kernel panicked: {panic.strip().splitlines()[0]}"
        else:
            why = self.how_it_ended()
        return VirtualMachineError(f"the VM is gone: {why}", boot_log=console)

    async def or_death(self, work: Awaitable[_T]) -> _T:
        """The result of `work`, or `death()` where QEMU ends first, or where its end is why `work` failed."""
        task = asyncio.ensure_future(work)
        try:
            either: tuple[asyncio.Future[Any], ...] = (task, self.ended)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self.death()
            try:
                return task.result()
            except VirtualMachineError as error:
                if self.running:
                    raise
                raise self.death() from error
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def tail(path: Path, size: int = _TAIL) -> str:
    """The last `size` bytes of a file as text; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""
