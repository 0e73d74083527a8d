"""Two framings talk through a wire that cuts, delays and interleaves their bytes at random; and resync."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firkin.vminitd import events as ev
from firkin.vminitd.flow import CONNECTION_WINDOW, INITIAL_WINDOW, WIDE_WINDOW
from firkin.vminitd.framing import Framing
from firkin.vminitd.outbox import DATA_LIMIT
from firkin.vminitd.wire import INITIAL_SENTINEL, MAX_PAYLOAD, Hello

RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass
class Side:
    """A framing with what its user still wants to send, and what it got, by stream."""

    framing: Framing
    to_send: dict[int, memoryview] = field(default_factory=dict)
    got: dict[int, bytearray] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    unread: dict[int, int] = field(default_factory=dict)
    # Bytes on their way to this side.
    wire: bytearray = field(default_factory=bytearray)

    def pump(self) -> None:
        """Queue what credit allows; END what is done."""
        for stream, view in list(self.to_send.items()):
            rest = view[self.framing.send(stream, view) :]
            self.to_send[stream] = rest
            if not rest:
                del self.to_send[stream]
                self.framing.end(stream)

    def take_in(self, count: int) -> None:
        """Receive `count` bytes of the wire."""
        data, self.wire[:count] = bytes(self.wire[:count]), b""
        for event in self.framing.feed(data):
            match event:
                case ev.DataReceived(stream, payload):
                    self.got.setdefault(stream, bytearray()).extend(payload)
                    self.unread[stream] = self.unread.get(stream, 0) + len(payload)
                    assert self.unread[stream] <= WIDE_WINDOW
                case ev.StreamEnded(stream):
                    self.ended.add(stream)
                case ev.StreamOpened(stream, _):
                    self.got.setdefault(stream, bytearray())
                case ev.Faulted(_, reason):
                    raise AssertionError(reason)

    def consume(self, stream: int, count: int) -> None:
        """Read `count` of the unread bytes."""
        self.unread[stream] -= count
        self.framing.consumed(stream, count)


def pair() -> tuple[Side, Side]:
    """A host and a guest after their handshake."""
    host, guest = Side(Framing.host(Hello(INITIAL_SENTINEL))), Side(Framing.guest(INITIAL_SENTINEL))
    guest.take_in(guest.wire.extend(host.framing.take()) or len(guest.wire))
    host.take_in(host.wire.extend(guest.framing.take()) or len(host.wire))
    assert host.framing.established
    assert guest.framing.established
    return host, guest


def content(stream: int, size: int) -> bytes:
    """`size` bytes that differ between streams."""
    block = hashlib.sha256(stream.to_bytes(4, "little")).digest()
    return (block * (size // 32 + 1))[:size]


@RELAXED
@given(
    sizes=st.lists(st.integers(0, 400_000), min_size=1, max_size=4),
    answers=st.lists(st.integers(0, 300_000), min_size=5, max_size=5),
    data=st.data(),
)
def test_every_byte_arrives_in_order_however_it_is_cut(
    sizes: list[int], answers: list[int], data: st.DataObject
) -> None:
    host, guest = pair()
    for size, answer in zip(sizes, answers, strict=False):
        stream = host.framing.open(9)
        host.to_send[stream] = memoryview(content(stream, size))
        guest.to_send[stream] = memoryview(content(stream + 1000, answer))
    streams = sorted(host.to_send)
    guest.to_send, waiting = {}, guest.to_send
    sides = (host, guest)
    # Some cuts are tiny; one is not, so that it ends: both sides come to all of them.
    cuts = [*data.draw(st.lists(st.integers(1, 70_000), min_size=2, max_size=8)), 50_000]
    step = 0
    while len(host.ended) < len(streams) or len(guest.ended) < len(streams):
        step += 1
        assert step < 5_000, "the two wait for one another"
        side, other = sides[step % 2], sides[(step + 1) % 2]
        side.pump()
        other.wire += side.framing.take()
        other.take_in(min(cuts[step // 2 % len(cuts)], len(other.wire)))
        for stream in [stream for stream in waiting if stream in guest.got]:
            guest.to_send[stream] = waiting.pop(stream)
        for stream, unread in list(other.unread.items()):
            other.consume(stream, min(unread, cuts[-(step // 2) % len(cuts)]))
    for stream, size, answer in zip(streams, sizes, answers, strict=False):
        assert guest.got[stream] == content(stream, size)
        assert host.got.get(stream, b"") == content(stream + 1000, answer)
    for side in sides:
        side.take_in(len(side.wire))
        assert side.framing.streams == 0


def test_a_stalled_reader_stalls_only_its_own_stream() -> None:
    host, guest = pair()
    stalled, lively = host.framing.open(1), host.framing.open(2)
    host.to_send = {stalled: memoryview(bytes(1 << 20)), lively: memoryview(bytes(5 << 20))}
    while lively in host.to_send:
        host.pump()
        guest.wire += host.framing.take()
        guest.take_in(len(guest.wire))
        guest.consume(lively, guest.unread.get(lively, 0))
        host.wire += guest.framing.take()
        host.take_in(len(host.wire))
    guest.take_in(guest.wire.extend(host.framing.take()) or len(guest.wire))
    assert len(guest.got[lively]) == 5 << 20
    assert len(guest.got[stalled]) == INITIAL_WINDOW


def test_queue_is_bounded_and_a_stream_never_exceeds_its_credit() -> None:
    host, _ = pair()
    streams = [host.framing.open(1) for _ in range(40)]
    taken = [host.framing.send(stream, memoryview(bytes(1 << 20))) for stream in streams]
    assert max(taken) == INITIAL_WINDOW
    assert sum(taken) <= DATA_LIMIT
    assert not host.framing.queue_has_room
    sent = sum(len(buffer) for buffer in [host.framing.take()])
    assert sent <= CONNECTION_WINDOW + 40 * 20 + (CONNECTION_WINDOW // MAX_PAYLOAD + 41) * 16


def test_control_frames_go_ahead_of_queued_data() -> None:
    host, _ = pair()
    stream = host.framing.open(1)
    host.framing.take()
    host.framing.send(stream, memoryview(bytes(60_000)))
    host.framing.ping(b"12345678")
    assert host.framing.take()[2] == 6


def test_data_of_a_reset_stream_is_not_sent_but_its_credit_is_not_lost() -> None:
    host, guest = pair()
    stream = host.framing.open(1)
    host.framing.send(stream, memoryview(bytes(60_000)))
    host.framing.reset(stream)
    output = host.framing.take()
    assert len(output) == 40
    assert [type(event) for event in guest.framing.feed(output)] == [ev.StreamOpened, ev.StreamReset]


def test_small_frames_use_few_buffers() -> None:
    host, _ = pair()
    streams = [host.framing.open(1) for _ in range(500)]
    for _ in range(20):
        for stream in streams:
            host.framing.send(stream, memoryview(b"x"))
    while buffers := host.framing.pull():
        assert len(buffers) <= 1024
        host.framing.advance(sum(map(len, buffers)))


@RELAXED
@given(st.data())
def test_reconnects_at_any_byte_never_mix_connections(data: st.DataObject) -> None:
    """The guest's side lives on, the host's dies at any byte of what it sent; then comes a new host's HELLO."""
    guest = Framing.guest(INITIAL_SENTINEL)
    sentinel = INITIAL_SENTINEL
    for number in range(data.draw(st.integers(2, 6))):
        hello = Hello(sentinel)
        host = Framing.host(hello)
        mark = bytes([65 + number]) * data.draw(st.integers(1, 50_000))
        guest.feed(host.take())
        # What the guest still had in the kernel for the old connection comes first.
        stale = data.draw(st.binary(max_size=200))
        happened = host.feed(stale + guest.take())
        assert [type(event) for event in happened] == [ev.Established]
        sentinel = hello.next_sentinel
        stream = host.open(7)
        host.send(stream, memoryview(mark))
        output = host.take()
        cut = data.draw(st.integers(0, len(output)))
        got = b"".join(event.data for event in guest.feed(output[:cut]) if isinstance(event, ev.DataReceived))
        assert got == mark[: len(got)]
        assert guest.streams == (1 if cut >= 20 else 0)
        if guest.streams:
            guest.send(stream, memoryview(b"old " * 5000))
            guest.advance(min(data.draw(st.integers(0, 20_000)), sum(map(len, guest.pull()))))


@RELAXED
@given(arrived=st.booleans(), cut=st.integers(0, 63))
def test_a_host_that_does_not_know_whether_its_hello_arrived(arrived: bool, cut: int) -> None:
    guest = Framing.guest(INITIAL_SENTINEL)
    lost = Hello(INITIAL_SENTINEL)
    guest.feed(lost.encode()[: 64 if arrived else cut])
    host = Framing.host(Hello(INITIAL_SENTINEL), lost=lost.next_sentinel)
    guest.feed(host.take())
    happened = host.feed(guest.take())
    assert [type(event) for event in happened] == [ev.Established]
    guest.feed(host.take())
    stream = host.open(3)
    assert ev.StreamOpened(stream, 3) in guest.feed(host.take())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_garbage_is_a_named_fault_or_nothing(garbage: bytes, cut: int) -> None:
    for side in pair():
        events = side.framing.feed(garbage[:cut]) + side.framing.feed(garbage[cut:])
        if len(garbage) >= 16:
            assert [type(event) for event in events] == [ev.Faulted]
            assert side.framing.feed(garbage) == []
        else:
            assert events == []
