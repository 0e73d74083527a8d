"""A terminal with Firkin in it, as a terminal emulator makes one, and what a person does with it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from types import TracebackType
from typing import Any, Self

from tests.cli.conftest import FIRKIN

# For everything that a busy machine may make late; nothing is judged by it.
LIMIT = 60.0
CTRL_C, CTRL_Z = b"\x03", b"\x1a"


class Terminal:
    """Runs `firkin` with arguments on a terminal of its own, which is its controlling one; closes it at the end."""

    def __init__(self, *args: str, rows: int = 24, columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.modes_before = termios.tcgetattr(slave)
        # setsid(1) makes the terminal the controlling one, so that its signals arrive, and becomes the program.
        self.process = subprocess.Popen(["setsid", "-c", *FIRKIN, *args], stdin=slave, stdout=slave, stderr=slave)
        self._slave = slave
        self.seen = b""

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    @property
    def raw(self) -> bool:
        return not self.modes[3] & (termios.ICANON | termios.ECHO)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: str | bytes) -> None:
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def until(self, text: str) -> str:
        """What is written up to and with `text`, after what was returned before."""
        wanted, deadline = text.encode(), time.monotonic() + LIMIT
        while wanted not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._master], [], [], left)[0]:
                raise AssertionError(f"{text!r} was not written, but {self.seen!r}")
            self.seen += os.read(self._master, 65536)
        found, _, self.seen = self.seen.partition(wanted)
        return (found + wanted).decode(errors="replace")

    def ended(self) -> int:
        """Wait for Firkin's end, reading what it writes meanwhile (it waits for that); its exit code."""
        deadline = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still there: {self.seen!r}"
            if select.select([self._master], [], [], 0.05)[0]:
                self.seen += os.read(self._master, 65536)
        return self.process.returncode

    def hang_up(self) -> None:
        """Close the terminal, as a closed window does: the kernel sends SIGHUP."""
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._master >= 0:
            self.hang_up()
        self.process.wait(timeout=LIMIT)
