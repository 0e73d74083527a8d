"""What the framing tells its owner: one small value for each thing that happened on the wire."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from firkin.vminitd.wire import Answer, Hello

__all__ = [
    "Credited",
    "DataReceived",
    "Established",
    "Event",
    "Faulted",
    "Greeted",
    "PongReceived",
    "StreamEnded",
    "StreamOpened",
    "StreamReset",
]


class Established(NamedTuple):
    """Host role: the guest answered the HELLO; frames may follow."""

    answer: Answer


class Greeted(NamedTuple):
    """Guest role: a valid HELLO arrived and was answered; every stream from before it is gone."""

    hello: Hello
    refused: bool


class Faulted(NamedTuple):
    """The peer broke the rule `fault` (one word), as `reason` says; every stream is gone.

    In the guest's role nothing but a HELLO is read from then on; in the host's nothing at all.
    """

    fault: str
    reason: str


class StreamOpened(NamedTuple):
    """The peer opened `stream` to `port`; it is accepted unless reset."""

    stream: int
    port: int


class DataReceived(NamedTuple):
    """`data` arrived on `stream`: at most 32,752 bytes. `Framing.consumed` gives the credit back."""

    stream: int
    data: bytes


class StreamEnded(NamedTuple):
    """The peer sends no more on `stream`."""

    stream: int


class StreamReset(NamedTuple):
    """`stream` is gone in both directions, with Linux's `errno`."""

    stream: int
    errno: int


class Credited(NamedTuple):
    """`amount` more bytes may be sent on `stream`; 0: on the connection."""

    stream: int
    amount: int


class PongReceived(NamedTuple):
    """The answer to a ping, with its 8 bytes."""

    payload: bytes


Event: TypeAlias = (
    Established | Greeted | Faulted | StreamOpened | DataReceived | StreamEnded | StreamReset | Credited | PongReceived
)
