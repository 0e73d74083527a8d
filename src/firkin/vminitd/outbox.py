"""What waits to be sent: control frames first, then DATA in the order it was given, within the connection's credit.

DATA of all streams shares one queue. That keeps requests in the order in which they were made, and is fair because
no stream can queue more than its own credit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from firkin.vminitd.flow import CONNECTION_WINDOW, Flow
from firkin.vminitd.wire import END, HEADER_SIZE, control_frame, data_header

__all__ = ["DATA_LIMIT", "Outbox"]

# Bytes of DATA that may wait here, all streams together; beyond it writers wait.
DATA_LIMIT: Final = 1 << 20
# Bytes handed to one system call: enough to amortise it, little enough that control frames soon get their turn.
_BATCH: Final = 4 * 32768
# Buffers handed to one system call; Linux takes 1,024 (IOV_MAX).
_BUFFERS: Final = 256
# A payload up to this size is copied behind its header: cheaper than a buffer of its own.
_TINY: Final = 1024


class Outbox:
    """The queue towards the peer. `pull` gives what to write now, `advance` says how much of it was written."""

    __slots__ = ("_control", "_data", "_inflight", "control_bytes", "credit", "data_bytes")

    def __init__(self) -> None:
        self._control: list[bytes] = []
        self._data: deque[tuple[Flow, memoryview | None]] = deque()
        self._inflight: deque[bytes | memoryview] = deque()
        self.control_bytes = 0
        self.data_bytes = 0
        self.credit = CONNECTION_WINDOW

    def put_control(self, frame: bytes) -> None:
        """Queue a frame that needs no credit, ahead of all DATA."""
        self._control.append(frame)
        self.control_bytes += len(frame)

    def put_data(self, flow: Flow, payload: memoryview) -> None:
        """Queue one DATA frame's payload; the stream's credit was taken already."""
        flow.queued += 1
        self.data_bytes += len(payload)
        self._data.append((flow, payload))

    def put_end(self, flow: Flow) -> None:
        """Queue END behind what the stream has queued."""
        if flow.queued:
            self._data.append((flow, None))
        else:
            self.put_control(control_frame(END, flow.stream))

    def pull(self) -> Sequence[bytes | memoryview]:
        """The buffers to write next, in order; the same ones again until `advance` took them off."""
        inflight = self._inflight
        if not inflight:
            if self._control:
                inflight.append(b"".join(self._control))
                self._control.clear()
                self.control_bytes = 0
            if self._data:
                self._pull_data()
        return inflight

    def _pull_data(self) -> None:
        queue, inflight = self._data, self._inflight
        total = 0
        while queue and total < _BATCH and len(inflight) < _BUFFERS:
            flow, payload = queue[0]
            if payload is None:
                if not flow.gone:
                    inflight.append(control_frame(END, flow.stream))
                queue.popleft()
                continue
            size = len(payload)
            if flow.gone:
                self.data_bytes -= size
                queue.popleft()
                continue
            if size > self.credit:
                size = self.credit
                if size == 0:
                    return
                queue[0] = (flow, payload[size:])
                payload = payload[:size]
            else:
                queue.popleft()
                flow.queued -= 1
            self.credit -= size
            self.data_bytes -= size
            if size <= _TINY:
                inflight.append(b"".join((data_header(flow.stream, size), payload)))
            else:
                inflight.append(data_header(flow.stream, size))
                inflight.append(payload)
            total += size + HEADER_SIZE

    def advance(self, count: int) -> None:
        """Take `count` written bytes off the buffers that `pull` gave."""
        inflight = self._inflight
        while count:
            first = inflight[0]
            if len(first) > count:
                inflight[0] = memoryview(first)[count:]
                return
            count -= len(first)
            inflight.popleft()
