"""A running QEMU, as this process sees it: its end is noticed at once, whoever waits for what."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from firkin.errors import VirtualMachineError

__all__ = ["QemuProcess", "tail"]

_T = TypeVar("_T")
_TAIL = 4096


class QemuProcess:
    """One child. `ended` is done when it has ended and was reaped; its result is `Popen`'s return code.

    `said` is where its stderr goes, `console` where the guest's console does.
    """

    def __init__(self, child: subprocess.Popen[bytes], *, said: Path, console: Path) -> None:
        self.pid = child.pid
        self.said = said
        self.console = console
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

    def death(self) -> VirtualMachineError:
        """The error of what was under way when it ended."""
        code = self.ended.result()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        console = tail(self.console)
        panic = console.rpartition("Kernel panic - not syncing: ")[2] if "Kernel panic" in console else ""
        words = (panic or tail(self.said)).strip().splitlines()
        # QEMU's last word is why it ended; a kernel's panic begins with the reason.
        reason = f": {words[0 if panic else -1]}" if words else ""
        subject = "the guest's kernel panicked" if panic else f"QEMU {how}"
        return VirtualMachineError(f"the VM is gone: {subject}{reason}", boot_log=console)

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
