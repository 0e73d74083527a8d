"""The state of one stream, and its flow control (docs/protocol.md, section 3)."""

from __future__ import annotations

from typing import Final

__all__ = ["CONNECTION_WINDOW", "INITIAL_WINDOW", "MAX_STREAMS", "WIDE_WINDOW", "Flow"]

INITIAL_WINDOW: Final = 65_536
WIDE_WINDOW: Final = 262_144
CONNECTION_WINDOW: Final = 1 << 20
MAX_STREAMS: Final = 1024


class Flow:
    """One stream that is not yet gone. Credits and windows are bytes of DATA payload."""

    __slots__ = (
        "gone",
        "local_ended",
        "queued",
        "receive_credit",
        "remote_ended",
        "send_credit",
        "stream",
        "taken",
        "unreturned",
        "window",
    )

    def __init__(self, stream: int) -> None:
        self.stream = stream
        # Reset, or lost with its connection: what it has queued is not sent any more.
        self.gone = False
        self.local_ended = False
        self.remote_ended = False
        # Payloads of this stream in the outbox.
        self.queued = 0
        self.send_credit = INITIAL_WINDOW
        # What the peer may still send, and what it was allowed in all at a time.
        self.receive_credit = INITIAL_WINDOW
        self.window = INITIAL_WINDOW
        # Bytes the consumer took: in all (up to the first window), and not yet given back as credit.
        self.taken = 0
        self.unreturned = 0

    def take(self, count: int, spare: int) -> int:
        """The consumer took `count` bytes: the credit to give back now, 0 for none yet.

        Given back in steps of a quarter of the window, so that CREDIT frames stay few. A stream that has moved a whole
        window is busy: its window grows, if the connection's `spare` bytes of memory for that allow.
        """
        self.unreturned += count
        if self.window == INITIAL_WINDOW:
            self.taken += count
            if self.taken >= INITIAL_WINDOW and spare >= WIDE_WINDOW - INITIAL_WINDOW:
                self.unreturned += WIDE_WINDOW - INITIAL_WINDOW
                self.window = WIDE_WINDOW
        if self.unreturned < self.window // 4:
            return 0
        credit, self.unreturned = self.unreturned, 0
        self.receive_credit += credit
        return credit
