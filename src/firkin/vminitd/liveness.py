"""When a silent peer is dead: the rule behind the host's pings (docs/protocol.md, section 3). No I/O, no clock."""

from __future__ import annotations

from typing import Literal

__all__ = ["Liveness"]


class Liveness:
    """Judges the peer's silence while somebody waits for it. All times are seconds of one monotonic clock.

    `tick` is to be called every `interval` seconds while `waiting` is above 0 and the VM is not paused.
    """

    __slots__ = ("_since", "_ticked", "interval", "limit", "waiting")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.interval = limit / 4
        # Calls under way.
        self.waiting = 0
        self._since = 0.0
        self._ticked = 0.0

    def start(self, now: float) -> None:
        """Judging begins, or goes on after a pause: silence before `now` does not count."""
        self._since = self._ticked = now

    def heard(self, now: float) -> None:
        """Some bytes came."""
        self._since = now

    def tick(self, now: float) -> Literal["dead", "ping", "alive"]:
        """What to do now: give up, send a PING, or nothing."""
        if now - self._ticked > 2 * self.interval:
            # This process itself was stopped or starved; what the peer sent meanwhile may not be read yet.
            self._since = max(self._since, now - self.interval)
        self._ticked = now
        silence = now - self._since
        if silence >= self.limit:
            return "dead"
        return "ping" if silence >= self.interval else "alive"
