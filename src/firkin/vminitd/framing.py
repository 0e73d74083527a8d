"""The guest link without I/O: bytes in, events out; actions in, bytes out (docs/protocol.md).

Both roles are here. The host's speaks HELLO first, and is of no more use after a fault of its peer. The guest's answers
a HELLO in any state; after a fault it drops everything and waits for the next HELLO. It serves `control.sock`, and
stands in for the agent in tests.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from firkin.errors import StateError
from firkin.vminitd import wire
from firkin.vminitd.events import (
    Credited,
    DataReceived,
    Established,
    Event,
    Faulted,
    Greeted,
    PongReceived,
    StreamEnded,
    StreamOpened,
    StreamReset,
)
from firkin.vminitd.flow import CONNECTION_WINDOW, INITIAL_WINDOW, MAX_STREAMS, WIDE_WINDOW, Flow
from firkin.vminitd.greeting import AnswerSearch, HelloSearch
from firkin.vminitd.outbox import DATA_LIMIT, Outbox
from firkin.vminitd.wire import MAX_CREDIT, MAX_PAYLOAD, Answer, Hello, ProtocolFault, control_frame

__all__ = ["Framing"]

_BUFFER_SIZE: Final = 256 * 1024
# Answers (RESET, CREDIT, PONG) that wait because the peer does not read: beyond this it floods.
_CONTROL_LIMIT: Final = 1 << 20
# Memory for windows wider than the initial one, all streams together.
_WIDE_BUDGET: Final = 16 << 20
# A DATA frame smaller than this is not worth sending while more is waiting for credit.
_SMALL: Final = 4096
_ECANCELED: Final = 125
_EMFILE: Final = 24

_unpack_header = wire.HEADER.unpack_from
_crc32 = zlib.crc32


class Framing:
    """One side of a link. Made by `Framing.host` or `Framing.guest`.

    Input: `feed(data)`, or without a copy `buffer()` and `received(count)`; both return what happened. Output: `pull()`
    and `advance(count)`. Streams are named by their number. Methods that act on a stream that is gone do nothing.
    """

    def __init__(self, *, first_stream: int) -> None:
        self._first = first_stream
        self._answer_search: AnswerSearch | None = None
        self._hello_search: HelloSearch | None = None
        self._schema = bytes(16)
        self._boot_id = bytes(16)
        self._buffer = bytearray(_BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._reset_state()
        # False before the handshake, and in the guest's role after a fault or a refusal.
        self.established = False

    def _reset_state(self) -> None:
        self._flows: dict[int, Flow] = {}
        self._outbox = Outbox()
        self._next = self._first
        self._last_peer = 0
        self._peer_open = 0
        self._receive_credit = CONNECTION_WINDOW
        self._unreturned = 0
        self._wide_budget = _WIDE_BUDGET
        self._start = self._end = 0
        # Bytes at the buffer's end that are not parsed yet, since they may become a HELLO.
        self._held = 0

    @classmethod
    def host(cls, hello: Hello, *, lost: bytes | None = None) -> Framing:
        """The host's side, beginning with `hello`.

        `lost` is the sentinel of a HELLO of which nobody knows whether it arrived: where the guest has not seen it, it
        still waits for `hello.sentinel`, else for `lost`. Two HELLOs then go out, and the second one's answer counts.
        """
        framing = cls(first_stream=1)
        if lost is not None:
            framing._outbox.put_control(Hello(hello.sentinel, next_sentinel=lost).encode())
            hello = Hello(lost, hello.nonce, hello.next_sentinel, hello.major, hello.minor, hello.flags)
        framing._outbox.put_control(hello.encode())
        framing._answer_search = AnswerSearch(hello.nonce)
        return framing

    @classmethod
    def guest(cls, sentinel: bytes, *, schema: bytes = bytes(16), boot_id: bytes = bytes(16)) -> Framing:
        """The guest's side, waiting for a HELLO that begins with `sentinel`."""
        framing = cls(first_stream=2)
        framing._hello_search = HelloSearch(sentinel)
        framing._schema, framing._boot_id = schema, boot_id
        return framing

    def is_open(self, stream: int) -> bool:
        """Whether `stream` is open in at least one direction."""
        return stream in self._flows

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._flows)

    # ---- input

    def buffer(self) -> memoryview:
        """Free space to receive into; `received` says how much of it was filled."""
        if self._end > _BUFFER_SIZE // 2:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def received(self, count: int) -> list[Event]:
        """Take in `count` bytes that were put into `buffer()`. A peer's fault is the last event."""
        fresh = self._end
        self._end += count
        events: list[Event] = []
        if self._hello_search is not None:
            self._receive_as_guest(self._hello_search, fresh, events)
        elif self._answer_search is None or self._find_answer(self._answer_search, events):
            self._parse(events)
        return events

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """`buffer` and `received` in one, for data that is elsewhere."""
        view = memoryview(data)
        events: list[Event] = []
        while len(view):
            space = self.buffer()
            count = min(len(space), len(view))
            space[:count] = view[:count]
            events += self.received(count)
            view = view[count:]
        return events

    def _find_answer(self, search: AnswerSearch, events: list[Event]) -> bool:
        """Drop what comes before the answer to our HELLO; true where frames may follow."""
        found = search.feed(bytes(self._view[: self._end]))
        self._start = self._end = 0
        if found is None:
            return False
        answer, rest = found
        self._answer_search = None
        self._place(rest)
        self.established = answer.status == 0
        events.append(Established(answer))
        return self.established

    def _receive_as_guest(self, search: HelloSearch, fresh: int, events: list[Event]) -> None:
        """Parse what was put at offset `fresh` of the buffer, up to and from any HELLO in it."""
        data = bytes(self._view[fresh : self._end])
        while (found := search.feed(data)) is not None:
            hello, begin, end = found
            if begin > 0:
                self._end = fresh + begin
                self._held = 0
                self._parse(events)
            self._reset_state()
            refused = hello.major != wire.MAJOR
            answer = Answer(hello.nonce, status=int(refused), schema=self._schema, boot_id=self._boot_id)
            self._outbox.put_control(answer.encode())
            self.established = not refused
            events.append(Greeted(hello, refused))
            data = data[end:]
            fresh = 0
            self._place(data)
        self._held = search.pending
        self._parse(events)

    def _place(self, data: bytes) -> None:
        self._buffer[: len(data)] = data
        self._start, self._end = 0, len(data)

    def _parse(self, events: list[Event]) -> None:
        """Take every whole frame off the buffer; a fault ends the connection, after the events that came before it."""
        if not self.established:
            self._start = self._end = 0
            return
        try:
            self._parse_frames(events)
            if self._outbox.control_bytes > _CONTROL_LIMIT:
                raise ProtocolFault("flood", "it floods the link and does not read the answers")
        except ProtocolFault as fault:
            for flow in self._flows.values():
                flow.gone = True
            self._reset_state()
            self.established = False
            events.append(Faulted(fault.fault, str(fault)))

    def _parse_frames(self, events: list[Event]) -> None:
        buffer, view, flows = self._buffer, self._view, self._flows
        start, end = self._start, self._end - self._held
        while end - start >= 16:
            magic, kind, flags, stream, length, crc = _unpack_header(buffer, start)
            body = start + 16
            if magic != wire.MAGIC or crc != _crc32(view[start : start + 12]) or flags:
                raise _header_fault(magic, crc == _crc32(view[start : start + 12]), flags)
            if kind != wire.DATA:
                self._check_control(kind, stream, length)
                if body + length > end:
                    break
                self._control(kind, stream, bytes(view[body : body + length]), events)
            else:
                if not 0 < length <= MAX_PAYLOAD:
                    raise ProtocolFault("length", f"a DATA frame of {length} bytes, which must be 1 to {MAX_PAYLOAD}")
                flow = flows.get(stream)
                if flow is None:
                    self._check_was_open(kind, stream)
                if body + length > end:
                    break
                self._take_data_credit(flow, length)
                if flow is not None:
                    events.append(DataReceived(stream, bytes(view[body : body + length])))
            start = body + length
        if start == self._end:
            start = self._end = 0
        self._start = start

    def _take_data_credit(self, flow: Flow | None, length: int) -> None:
        """Count `length` bytes of DATA; the connection's are given back as they come off the port, read or not."""
        self._receive_credit -= length
        if flow is not None:
            flow.receive_credit -= length
        if self._receive_credit < 0 or (flow is not None and flow.receive_credit < 0):
            where = f"stream {flow.stream}" if flow is not None and flow.receive_credit < 0 else "the connection"
            raise ProtocolFault("window", f"more DATA than the credit of {where} allows")
        if flow is not None and flow.remote_ended:
            raise ProtocolFault("ended", f"DATA after END on stream {flow.stream}")
        self._unreturned += length
        if self._unreturned >= CONNECTION_WINDOW // 4:
            self._outbox.put_control(control_frame(wire.CREDIT, 0, self._unreturned))
            self._receive_credit += self._unreturned
            self._unreturned = 0

    def _check_control(self, kind: int, stream: int, length: int) -> None:
        """Judge the header of a frame other than DATA, before its payload is there."""
        wanted = wire.PAYLOAD_SIZES.get(kind)
        if wanted is None:
            raise ProtocolFault("type", f"a frame of unknown type {kind}")
        if length != wanted:
            raise ProtocolFault("length", f"a frame of type {kind} with {length} bytes, which must be {wanted}")
        if kind in (wire.PING, wire.PONG):
            if stream != 0:
                raise ProtocolFault("stream", f"a PING or PONG on stream {stream}")
        elif kind == wire.OPEN:
            if stream == 0 or stream % 2 == self._first % 2 or stream <= self._last_peer:
                raise ProtocolFault("stream", f"an OPEN of stream {stream}, which is not its next to use")
        elif stream not in self._flows and not (stream == 0 and kind == wire.CREDIT):
            self._check_was_open(kind, stream)

    def _check_was_open(self, kind: int, stream: int) -> None:
        """A frame for a stream that was closed was under way and is dropped; for one that never was, it is a fault."""
        last = self._next - 2 if stream % 2 == self._first % 2 else self._last_peer
        if stream == 0 or stream > last:
            raise ProtocolFault("stream", f"a frame of type {kind} for stream {stream}, which was never opened")

    def _control(self, kind: int, stream: int, payload: bytes, events: list[Event]) -> None:
        """Take in one frame other than DATA, whose header was found right."""
        if kind == wire.PING:
            self._outbox.put_control(control_frame(wire.PONG, 0, payload))
            return
        if kind == wire.PONG:
            events.append(PongReceived(payload))
            return
        value = int.from_bytes(payload, "little")
        if kind == wire.OPEN:
            self._opened(stream, value, events)
            return
        flow = self._flows.get(stream)
        if kind == wire.CREDIT:
            self._credited(flow, stream, value, events)
        elif flow is None:
            return
        elif kind == wire.RESET:
            self._forget(flow)
            flow.gone = True
            events.append(StreamReset(stream, value))
        else:
            if flow.remote_ended:
                raise ProtocolFault("ended", f"a second END on stream {stream}")
            flow.remote_ended = True
            if flow.local_ended:
                self._forget(flow)
            events.append(StreamEnded(stream))

    def _opened(self, stream: int, port: int, events: list[Event]) -> None:
        self._last_peer = stream
        if self._peer_open >= MAX_STREAMS:
            self._outbox.put_control(control_frame(wire.RESET, stream, _EMFILE))
            return
        self._peer_open += 1
        self._flows[stream] = Flow(stream)
        events.append(StreamOpened(stream, port))

    def _credited(self, flow: Flow | None, stream: int, amount: int, events: list[Event]) -> None:
        if not 0 < amount <= MAX_CREDIT:
            raise ProtocolFault("credit", f"a CREDIT of {amount} bytes, which must be 1 to {MAX_CREDIT}")
        if stream == 0:
            self._outbox.credit += amount
            window = self._outbox.credit
        elif flow is not None:
            flow.send_credit += amount
            window = flow.send_credit
        else:
            return
        if window > MAX_CREDIT:
            raise ProtocolFault("credit", f"a CREDIT that lifts the window of stream {stream} above {MAX_CREDIT}")
        events.append(Credited(stream, amount))

    def _forget(self, flow: Flow) -> None:
        del self._flows[flow.stream]
        if flow.stream % 2 != self._first % 2:
            self._peer_open -= 1
        if flow.window > INITIAL_WINDOW:
            self._wide_budget += WIDE_WINDOW - INITIAL_WINDOW

    # ---- actions

    def open(self, port: int) -> int:
        """Open a stream to the peer's `port` (u32) and return its number. Raises `StateError`."""
        stream = self._next
        if stream > 0xFFFF_FFFF:
            raise StateError("guest link: every stream number was used", hint="connect anew")
        self._next += 2
        self._flows[stream] = Flow(stream)
        self._outbox.put_control(control_frame(wire.OPEN, stream, port))
        return stream

    def send(self, stream: int, data: memoryview) -> int:
        """Queue as much of `data` as credit allows and return how many bytes that is.

        `data` is not copied, so it must not change. Where less was taken, go on after `Credited` for the stream, or,
        while `queue_has_room` is false, once it is true.
        """
        flow = self._flows.get(stream)
        if flow is None or flow.local_ended:
            return 0
        wanted = len(data)
        size = min(wanted, flow.send_credit, DATA_LIMIT - self._outbox.data_bytes)
        if size < wanted and size < _SMALL:
            return 0
        flow.send_credit -= size
        for begin in range(0, size, MAX_PAYLOAD):
            self._outbox.put_data(flow, data[begin : min(begin + MAX_PAYLOAD, size)])
        return size

    @property
    def queue_has_room(self) -> bool:
        """Whether the outbox would take more DATA; where not, `send` waits for it as for credit."""
        return self._outbox.data_bytes <= DATA_LIMIT - _SMALL

    def end(self, stream: int) -> None:
        """Send no more on `stream`; what is queued goes first."""
        flow = self._flows.get(stream)
        if flow is None or flow.local_ended:
            return
        flow.local_ended = True
        self._outbox.put_end(flow)
        if flow.remote_ended:
            self._forget(flow)

    def reset(self, stream: int, errno: int = _ECANCELED) -> None:
        """End `stream` at once, both ways; what is queued is not sent."""
        flow = self._flows.get(stream)
        if flow is None:
            return
        self._forget(flow)
        flow.gone = True
        self._outbox.put_control(control_frame(wire.RESET, stream, errno))

    def consumed(self, stream: int, count: int) -> bool:
        """`count` bytes of `stream` were taken by whoever reads it; true where that was worth giving credit back."""
        flow = self._flows.get(stream)
        if flow is None or flow.remote_ended:
            return False
        before = flow.window
        credit = flow.take(count, self._wide_budget)
        if flow.window > before:
            self._wide_budget -= WIDE_WINDOW - INITIAL_WINDOW
        if credit:
            self._outbox.put_control(control_frame(wire.CREDIT, stream, credit))
        return credit > 0

    def ping(self, payload: bytes) -> None:
        """Ask the peer to answer with the same 8 bytes."""
        self._outbox.put_control(control_frame(wire.PING, 0, payload))

    # ---- output

    def pull(self) -> Sequence[bytes | memoryview]:
        """The buffers to write next, in order; the same ones again until `advance` took them off."""
        return self._outbox.pull()

    def advance(self, count: int) -> None:
        """`count` bytes of what `pull` gave were written."""
        self._outbox.advance(count)

    def take(self) -> bytes:
        """Everything that may be sent now, as one byte string: `pull` and `advance` for those without a socket."""
        parts = []
        while buffers := self.pull():
            parts.append(b"".join(buffers))
            self.advance(len(parts[-1]))
        return b"".join(parts)


def _header_fault(magic: int, crc_right: bool, flags: int) -> ProtocolFault:
    if magic != wire.MAGIC:
        return ProtocolFault("magic", f"0x{magic:04x} where a frame should begin")
    if not crc_right:
        return ProtocolFault("checksum", "a frame header with a wrong crc")
    return ProtocolFault("flags", f"unknown frame flags 0x{flags:02x}")
