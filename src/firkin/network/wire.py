"""QEMU's end of the cable: frames over a stream socket, each after its length (u32, big-endian)."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Wire", "WireError"]

_BUFFER: Final = 1 << 19
_LARGEST_FRAME: Final = 14 + 65_535
_MOST_PARTS: Final = 256
# Above it nothing more is read for the guest; far above it what can't wait is dropped.
_FULL: Final = 1 << 19
_OVERFULL: Final = 1 << 22


class WireError(Exception):
    """QEMU is gone, or does not keep to the format."""


class Wire:
    """Non-blocking. `receive` and `flush` raise `WireError`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self.sock = sock
        self._buffer = memoryview(bytearray(_BUFFER))
        self._filled = 0
        self._out: deque[bytes | memoryview] = deque()
        self.waiting = 0

    @property
    def full(self) -> bool:
        """Whether the guest is behind."""
        return self.waiting > _FULL

    def receive(self, take: Callable[[memoryview], None]) -> None:
        """Read what is there and hand over each whole frame; the view is good until `take` returns."""
        try:
            count = self.sock.recv_into(self._buffer[self._filled :])
        except BlockingIOError:
            return
        except OSError as error:
            raise WireError(str(error)) from error
        if not count:
            raise WireError("closed")
        self._filled += count
        at = 0
        while self._filled - at >= 4:
            size = int.from_bytes(self._buffer[at : at + 4], "big")
            if size > _LARGEST_FRAME:
                raise WireError(f"a frame of {size} bytes")
            if self._filled - at - 4 < size:
                break
            take(self._buffer[at + 4 : at + 4 + size])
            at += 4 + size
        if at:
            self._filled -= at
            # Through a copy: the two places may overlap.
            self._buffer[: self._filled] = bytes(self._buffer[at : at + self._filled])

    def send(self, *parts: bytes | memoryview) -> None:
        """Queue one frame, for the next `flush`; dropped where the guest has long taken none."""
        size = sum(map(len, parts))
        if self.waiting > _OVERFULL:
            return
        self._out.append(size.to_bytes(4, "big") + parts[0])
        self._out.extend(part for part in parts[1:] if len(part))
        self.waiting += 4 + size

    def flush(self) -> bool:
        """Write what is queued; False where some has to wait."""
        while self._out:
            batch = [self._out[index] for index in range(min(len(self._out), _MOST_PARTS))]
            try:
                sent = self.sock.sendmsg(batch)
            except BlockingIOError:
                return False
            except OSError as error:
                raise WireError(str(error)) from error
            self.waiting -= sent
            for part in batch:
                if sent < len(part):
                    self._out[0] = memoryview(part)[sent:]
                    break
                sent -= len(part)
                self._out.popleft()
        return True
