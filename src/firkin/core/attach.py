"""A process in the foreground of this one: signals go to it, Ctrl-C twice ends it, the terminal is raw and put back."""

from __future__ import annotations

import asyncio
import os
import signal as signals
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

from firkin.core.exit import ExitStatus
from firkin.types import PtySize, Signal

__all__ = ["Foreground", "foreground", "raw_terminal", "terminal_size"]

# Those that a program would expect to reach it; SIGCHLD, SIGPIPE and the like are our own.
_FORWARDED = (signals.SIGINT, signals.SIGTERM, signals.SIGHUP, signals.SIGQUIT, signals.SIGUSR1, signals.SIGUSR2)

# How long a process has after its terminal was hung up: nobody sees it any more, and it may be a container's process
# 1, which the kernel spares from signals that it does not handle (pid_namespaces(7)).
_HANG_UP_GRACE = 2.0


class Foreground(Protocol):
    """A process that can be in the foreground: an `AsyncProcess`, or a `RemoteProcess`."""

    async def wait(self) -> ExitStatus:
        """Wait for its end."""

    async def kill(self, signal: Signal | int | str) -> None:
        """Send a signal."""

    async def resize(self, size: PtySize) -> None:
        """Tell its terminal its size."""


async def foreground(
    process: Foreground, *, terminal: bool = False, own: bool = True, proxy: bool = True
) -> ExitStatus:
    """Wait for `process` as a shell waits for its foreground job.

    Signals sent to us are sent on if `proxy`; the second SIGINT kills. With `terminal` our own is raw meanwhile, its
    size is kept in step, and when it hangs up (SIGHUP) the process is killed a moment later. One that is not our `own`
    outlives us: a hang-up ends us alone.
    """
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()
    interrupts = 0
    hung_up: asyncio.TimerHandle | None = None

    def start(work: asyncio.Task[None]) -> None:
        pending.add(work)
        work.add_done_callback(pending.discard)

    def forward(number: signals.Signals) -> None:
        nonlocal interrupts, hung_up
        interrupts += number is signals.SIGINT
        if terminal and number is signals.SIGHUP and hung_up is None:
            hung_up = loop.call_later(_HANG_UP_GRACE, lambda: forward(signals.SIGKILL))
        start(asyncio.ensure_future(process.kill(signals.SIGKILL if interrupts > 1 else number)))

    def resized() -> None:
        start(asyncio.ensure_future(process.resize(terminal_size())))

    with ExitStack() as stack:
        for number in _FORWARDED if proxy else ():
            if number is signals.SIGHUP and not own:
                continue
            loop.add_signal_handler(number, forward, number)
            stack.callback(loop.remove_signal_handler, number)
        if terminal and sys.stdin.isatty():
            stack.enter_context(raw_terminal(sys.stdin.fileno()))
            loop.add_signal_handler(signals.SIGWINCH, resized)
            stack.callback(loop.remove_signal_handler, signals.SIGWINCH)
            resized()
        try:
            status = await process.wait()
        finally:
            if hung_up is not None:
                hung_up.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return status


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Put the terminal `fd` into raw mode; put it back whatever happens."""
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        # One that has hung up is nobody's to put back.
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def terminal_size(fd: int = 0) -> PtySize:
    """The size of the terminal `fd`; 80x24 where it is none."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return PtySize()
    return PtySize(size.columns or 80, size.lines or 24)
