"""Errors across the control socket: the class by name, and what it holds (proto/firkin/control.proto, Error)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin import errors
from firkin.errors import AgentError, FirkinError, ProcessFailedError, StreamResetError
from firkin.vminitd.agent import printable

if TYPE_CHECKING:
    from firkin.vminitd._generated import control_pb2 as pb

__all__ = ["decode_error", "encode_error"]


def encode_error(error: FirkinError) -> pb.Error:
    """What the owner answers where `error` was raised."""
    from firkin.vminitd._generated import control_pb2 as pb

    return pb.Error(
        kind=type(error).__name__,
        message=error.message,
        hint=error.hint or "",
        stage=error.stage if isinstance(error, AgentError) else "",
        errno=(error.errno or 0) if isinstance(error, AgentError | StreamResetError) else 0,
        outcome_unknown=error.outcome_unknown,
    )


def decode_error(answer: pb.Error) -> FirkinError:
    """The error to raise for what the owner answered; a class unknown here becomes `FirkinError`."""
    message, hint = printable(answer.message), printable(answer.hint) or None
    kind = getattr(errors, answer.kind, None) if answer.kind in errors.__all__ else None
    error: FirkinError
    if kind is not None and issubclass(kind, AgentError):
        error = kind(message, stage=printable(answer.stage), errno=answer.errno, hint=hint)
    elif kind is StreamResetError:
        error = StreamResetError(message, errno=answer.errno)
    elif kind is None or kind is ProcessFailedError:
        error = FirkinError(message, hint=hint)
    else:
        error = kind(message, hint=hint)
    error.outcome_unknown = answer.outcome_unknown
    return error
