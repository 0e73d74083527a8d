"""A process in the foreground of this one: signals go to it, Ctrl-C twice ends it, the terminal is raw and put back."""

from __future__ import annotations

import asyncio
import os
import signal as signals
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from firkin.core.exit import ExitStatus
from firkin.types import PtySize, Signal

__all__ = ["Foreground", "foreground", "raw_terminal", "terminal_size"]

# Those that a program would expect to reach it; SIGCHLD, SIGPIPE and the like are our own.
_FORWARDED = (signals.SIGINT, signals.SIGTERM, signals.SIGHUP, signals.SIGQUIT, signals.SIGUSR1, signals.SIGUSR2)


class Foreground(Protocol):
    """A process that can be in the foreground: an `AsyncProcess`, or a `RemoteProcess`."""

    async def wait(self) -> ExitStatus:
        """Wait for its end."""

    async def kill(self, signal: Signal | int | str) -> None:
        """Send a signal."""

    async def resize(self, size: PtySize) -> None:
        """Tell its terminal its size."""


async def foreground(process: Foreground, *, terminal: bool = False) -> ExitStatus:
    """Wait for `process` as a shell waits for its foreground job.

    Signals sent to us are sent on; the second SIGINT kills. With `terminal` our own is raw meanwhile and its size is
    kept in step.
    """
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()
    interrupts = 0

    def start(work: asyncio.Task[None]) -> None:
        pending.add(work)
        work.add_done_callback(pending.discard)

    def forward(number: signals.Signals) -> None:
        nonlocal interrupts
        interrupts += number is signals.SIGINT
        start(asyncio.ensure_future(process.kill(signals.SIGKILL if interrupts > 1 else number)))

    def resized() -> None:
        start(asyncio.ensure_future(process.resize(terminal_size())))

    with ExitStack() as stack:
        for number in _FORWARDED:
            loop.add_signal_handler(number, forward, number)
            stack.callback(loop.remove_signal_handler, number)
        if terminal and sys.stdin.isatty():
            stack.enter_context(raw_terminal(sys.stdin.fileno()))
            loop.add_signal_handler(signals.SIGWINCH, resized)
            stack.callback(loop.remove_signal_handler, signals.SIGWINCH)
            resized()
        status = await process.wait()
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
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def terminal_size(fd: int = 0) -> PtySize:
    """The size of the terminal `fd`; 80x24 where it is none."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return PtySize()
    return PtySize(size.columns or 80, size.lines or 24)
