"""What goes over the link, a line each, for `firkin -vv`: every frame and every call.

Switched on by the level of the logger `firkin.vminitd.trace` when a link is made; off, a link pays one comparison for
each system call. Frames are read off the bytes as they pass, so that what is shown is what was on the wire.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable
from typing import Final

from firkin.vminitd.wire import CREDIT, DATA, END, HEADER, HEADER_SIZE, MAGIC, OPEN, PAYLOAD_SIZES, PING, PONG, RESET

__all__ = ["Trace", "call_ended", "tracer"]

_log = logging.getLogger(__name__)

_NAMES: Final = {
    OPEN: "OPEN",
    DATA: "DATA",
    END: "END",
    RESET: "RESET",
    CREDIT: "CREDIT",
    PING: "PING",
    PONG: "PONG",
}
# What the payload of a frame says, where it is one number.
_VALUES: Final = {OPEN: "port", RESET: "errno", CREDIT: "bytes"}


def tracer() -> tuple[Trace, Trace] | None:
    """What the bytes sent and received pass by, or `None` where nobody wants to see them."""
    return (Trace(">"), Trace("<")) if _log.isEnabledFor(logging.DEBUG) else None


def call_ended(name: str, seconds: float, error: BaseException | None) -> None:
    """A call was answered, or will not be."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug("call %s: %.1f ms%s", name, seconds * 1000, f", {type(error).__name__}: {error}" if error else "")


class Trace:
    """One direction of a link: `arrow` is `>` for what is sent, `<` for what is received."""

    def __init__(self, arrow: str) -> None:
        self._arrow = arrow
        self._rest = bytearray()
        # Bytes of a DATA frame's payload that are still to pass.
        self._skip = 0
        # Bytes that are no frame: a HELLO, its answer, or what was under way when the last link ended.
        self._other = 0

    def saw(self, buffers: Iterable[bytes | bytearray | memoryview], count: int) -> None:
        """The first `count` bytes of `buffers` passed."""
        for buffer in buffers:
            part = memoryview(buffer)[:count]
            count -= len(part)
            self._take(part)

    def _take(self, part: memoryview) -> None:
        skipped = min(self._skip, len(part))
        self._skip -= skipped
        self._rest += part[skipped:]
        while len(self._rest) >= HEADER_SIZE:
            magic, kind, _flags, stream, length, crc = HEADER.unpack_from(self._rest)
            if magic != MAGIC or crc != zlib.crc32(self._rest[:12]):
                del self._rest[:1]
                self._other += 1
                continue
            body = PAYLOAD_SIZES.get(kind, 0)
            if len(self._rest) < HEADER_SIZE + body:
                break
            self._say(kind, stream, length, bytes(self._rest[HEADER_SIZE : HEADER_SIZE + body]))
            del self._rest[: HEADER_SIZE + body]
            if kind == DATA:
                self._skip = max(0, length - len(self._rest))
                del self._rest[:length]

    def _say(self, kind: int, stream: int, length: int, payload: bytes) -> None:
        if self._other:
            _log.debug("%s %d bytes that are no frame: HELLO", self._arrow, self._other)
            self._other = 0
        value = f", {_VALUES[kind]} {int.from_bytes(payload, 'little')}" if kind in _VALUES else ""
        _log.debug("%s %-6s stream %d, length %d%s", self._arrow, _NAMES.get(kind, kind), stream, length, value)
