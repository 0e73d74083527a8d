"""The error tree: one root, then one branch for each thing a caller can do about it.

Every error prints as one line, `what failed: why (what to do)`; its cause is chained, never flattened into text.
"""

from __future__ import annotations

from firkin.escaped import escaped

__all__ = [
    "AgentError",
    "BootError",
    "ExecError",
    "FirkinError",
    "FirkinTimeoutError",
    "ImageError",
    "ImageNotFoundError",
    "InvalidInputError",
    "LinkError",
    "NotFoundError",
    "ProcessFailedError",
    "RegistryError",
    "StateError",
    "StreamResetError",
    "VirtualMachineError",
]


class FirkinError(Exception):
    """The root of every error that Firkin raises.

    `hint` says what to do about it, in a few words. `outcome_unknown` is true where a request had been sent and its
    answer was lost: the work may or may not have been done. `message` is as it was given; the text of the error has
    escapes (`\\n`, `\\x1b`) for what an image's or a guest's names may hold and a terminal would obey.
    """

    def __init__(self, message: str, *, hint: str | None = None, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.outcome_unknown = outcome_unknown

    def __str__(self) -> str:
        text = self.message
        if self.outcome_unknown:
            text += " (its outcome is unknown)"
        text = f"{text} ({self.hint})" if self.hint else text
        return escaped(text)


class InvalidInputError(FirkinError, ValueError):
    """An argument, option or file of the caller's is not valid; nothing was done. `value` is the offender."""

    def __init__(self, message: str, *, value: object = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.value = value


class ImageError(FirkinError):
    """An image can't be had, read, verified or written."""


class ImageNotFoundError(ImageError):
    """No such image here, or in the registry."""


class RegistryError(ImageError):
    """A registry refused, lied or could not be reached. `status` is the HTTP status, where there was one."""

    def __init__(self, message: str, *, status: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class VirtualMachineError(FirkinError):
    """The VM could not be started or has ended. `boot_log` is the tail of its console."""

    def __init__(
        self, message: str, *, hint: str | None = None, boot_log: str = "", outcome_unknown: bool = False
    ) -> None:
        super().__init__(message, hint=hint, outcome_unknown=outcome_unknown)
        self.boot_log = boot_log


class BootError(VirtualMachineError):
    """The VM did not come up. `transient` is true where another try may succeed (never for a configuration error)."""

    def __init__(self, message: str, *, transient: bool = False, hint: str | None = None, boot_log: str = "") -> None:
        super().__init__(message, hint=hint, boot_log=boot_log)
        self.transient = transient


class AgentError(FirkinError):
    """The guest agent answered with an error. `stage` says where, `errno` is Linux's number (0: none)."""

    def __init__(self, message: str, *, stage: str = "", errno: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.stage = stage
        self.errno = errno


class ExecError(AgentError):
    """The program could not be executed in the container. `exit_code` is a shell's: 127 not found, 126 not
    executable."""

    @property
    def exit_code(self) -> int:
        """127 where the program does not exist (ENOENT), else 126."""
        return 127 if self.errno == 2 else 126


class LinkError(VirtualMachineError):
    """The connection to the guest broke, or the peer broke the protocol."""


class StreamResetError(LinkError, ConnectionResetError):
    """The peer reset one stream of the guest link; the link itself goes on. `errno` is Linux's, as the peer gave it."""

    def __init__(self, message: str, *, errno: int, outcome_unknown: bool = False) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown)
        self.errno = errno


class StateError(FirkinError):
    """The thing is not in a state that allows this: a name in use, a container that has ended."""


class NotFoundError(StateError):
    """No container, volume or snapshot of that name."""


class ProcessFailedError(FirkinError):
    """A process ended with another status than 0 and `check` was asked for. `result` is its `CompletedProcess`."""

    def __init__(self, message: str, *, result: object) -> None:
        super().__init__(message)
        self.result = result


class FirkinTimeoutError(FirkinError, TimeoutError):
    """A wait reached its limit."""
