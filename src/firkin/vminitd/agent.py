"""The client of the guest agent: protobuf calls over the link (docs/protocol.md, section 5; proto/firkin/agent.proto).

Importing this module does not import protobuf, which costs about 40 ms: the first call does, or `preload`, which a
caller with nothing to do meanwhile (while QEMU starts, say) can use.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

from firkin.errors import AgentError, FirkinTimeoutError, LinkError
from firkin.escaped import escaped
from firkin.vminitd.calls import Calls
from firkin.vminitd.link import Link
from firkin.vminitd.oneof import field_of, put
from firkin.vminitd.rpc import Call, Caller

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from firkin.vminitd._generated import agent_pb2 as pb

__all__ = ["Agent", "deadline_ms", "preload", "printable"]

# What of the guest's text goes into an error.
_MAX_TEXT: Final = 400


def preload() -> None:
    """Import protobuf and the messages now."""
    from firkin.vminitd._generated import agent_pb2 as pb

    field_of(pb.Request, "call", pb.Info)


class Agent(Calls):
    """The agent at the other end of `link`.

    Each method sends its request before it returns and gives a `Call` to await, so that several can be sent in one go:

        answers = [agent.resume(...), agent.mount(...), agent.create_process(...)]   # one write, in this order
        for answer in answers:
            await answer

    Awaiting raises `AgentError` with the agent's `stage` and `errno`, `FirkinTimeoutError`, or `LinkError`; the last
    two with `outcome_unknown` where the request had been sent.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._caller = Caller(link)

    def submit(self, call: Message, *, timeout: float | None = None) -> Call[Any]:
        """Send `call` (one of the messages in `Request.call`) and return the answer to come: a message of `Reply`.

        `timeout` in seconds goes to the agent too, which then gives the work up.
        """
        return self._submit(call, "", timeout)

    async def call(self, call: Message, timeout: float | None = None) -> Any:
        """Send `call` and wait for its answer."""
        return await self._submit(call, "", timeout)

    def _submit(self, call: Message, result: str, timeout: float | None) -> Call[Any]:
        from firkin.vminitd._generated import agent_pb2 as pb

        request = put(pb.Request(deadline_ms=deadline_ms(timeout)), "call", call)
        text = field_of(pb.Request, "call", type(call)).replace("_", " ")

        def decode(data: bytes) -> Any:
            return _result(text, data, result, timed=timeout is not None)

        return self._caller.submit(text, request.SerializeToString(), decode, timeout)


def _result(name: str, data: bytes, wanted: str, *, timed: bool) -> Any:
    """The message in a reply's bytes, or raise what the agent says. `wanted` names a field of `Reply`; "": any."""
    from google.protobuf.message import DecodeError

    from firkin.vminitd._generated import agent_pb2 as pb

    try:
        reply = pb.Reply.FromString(data)
    except DecodeError as error:
        raise LinkError(f"{name}: a malformed answer", outcome_unknown=True) from error
    kind = reply.WhichOneof("result")
    if kind == "error":
        raise _error(name, reply.error, timed=timed)
    if kind is None or (wanted and kind != wanted):
        raise LinkError(f"{name}: the agent answered something else", outcome_unknown=True)
    return getattr(reply, kind)


def _error(name: str, error: pb.Error, *, timed: bool) -> AgentError | FirkinTimeoutError:
    if timed and error.errno == errno.ETIMEDOUT:
        return FirkinTimeoutError(f"{name}: not done within its limit", outcome_unknown=True)
    reason = os.strerror(error.errno) if error.errno else ""
    parts = [name, printable(error.stage), printable(error.message), reason]
    # The agent often says again what the call's name or the errno's text says already.
    kept = [part for index, part in enumerate(parts) if part and not any(part in other for other in parts[:index])]
    return AgentError(": ".join(kept), stage=printable(error.stage), errno=error.errno)


def deadline_ms(timeout: float | None) -> int:
    """`timeout` (seconds) as requests carry it; 0: none."""
    return 0 if timeout is None else max(1, min(int(timeout * 1000), 0xFFFF_FFFF))


def printable(text: str) -> str:
    """The guest's text, safe for one line of a terminal: no control characters, not too long."""
    return escaped(text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…")
