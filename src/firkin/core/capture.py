"""Reading a stream to its end, up to a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin.frozen import dataclass

if TYPE_CHECKING:
    from firkin.vminitd.stream import Stream

__all__ = ["CAPTURE_LIMIT", "Captured", "capture"]

CAPTURE_LIMIT = 64 << 20
"""Bytes of each of stdout and stderr that `run` keeps unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Captured:
    """What a stream held: at most the limit's number of bytes of `data`, and whether there was more."""

    data: bytes
    truncated: bool = False


async def capture(stream: Stream | None, limit: int = CAPTURE_LIMIT) -> Captured:
    """Read `stream` to its end and keep the first `limit` bytes; the rest is read and dropped, so that the writer is
    not blocked."""
    if stream is None:
        return Captured(b"")
    parts: list[bytes] = []
    kept = 0
    truncated = False
    while data := await stream.read():
        if kept + len(data) > limit:
            truncated = True
            data = data[: limit - kept]
        if data:
            parts.append(data)
            kept += len(data)
    return Captured(b"".join(parts), truncated)
