"""How a process ended: a code, a signal, or killed for memory."""

from __future__ import annotations

from dataclasses import field
from datetime import UTC, datetime
from signal import Signals

from firkin.errors import ProcessFailedError
from firkin.frozen import dataclass

__all__ = ["CompletedProcess", "ExitStatus"]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended. Exactly one of `code` (0-255) and `signal` (1-64) is set.

    `oom_killed`: the signal was the kernel's, for memory. `exited_at`: the guest's clock at that moment, in UTC.
    """

    code: int | None
    signal: int | None
    oom_killed: bool = False
    exited_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def returncode(self) -> int:
        """As `subprocess` has it: the code, or the negative signal."""
        return self.code if self.code is not None else -(self.signal or 0)

    @property
    def shell_code(self) -> int:
        """As a shell has it: the code, or 128 + the signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)

    def __str__(self) -> str:
        if self.oom_killed:
            return "killed for memory (OOM)"
        if self.signal is not None:
            try:
                return f"killed by {Signals(self.signal).name}"
            except ValueError:
                return f"killed by signal {self.signal}"
        return f"exit code {self.code}"


@dataclass(frozen=True, slots=True)
class CompletedProcess:
    """What `run` gives back: like `subprocess.CompletedProcess`, with the whole `ExitStatus` beside the return code.

    `stdout` and `stderr` are bytes (text if `text=True` was asked for), or `None` where they were not captured.
    `truncated`: one of them was
    longer than the limit of the capture, and the rest was dropped.
    """

    args: tuple[str, ...]
    status: ExitStatus
    stdout: bytes | str | None = None
    stderr: bytes | str | None = None
    truncated: bool = False

    @property
    def returncode(self) -> int:
        """The exit code, or the negative number of the signal that ended the process."""
        return self.status.returncode

    def check_returncode(self) -> None:
        """Raise `ProcessFailedError` unless the process ended with code 0."""
        if self.status.code == 0:
            return
        tail = self.stderr if isinstance(self.stderr, str) else (self.stderr or b"").decode(errors="replace")
        last = tail.strip().rpartition("\n")[2][-200:]
        name = self.args[0] if self.args else "the image's command"
        raise ProcessFailedError(f"{name} failed: {self.status}{': ' + last if last else ''}", result=self)
