"""One TCP connection of the guest, joined to a socket of the host: each end is a TCP of its own.

What the guest sends is acknowledged once the host's socket has taken it or it waits in a bounded queue; what the host
sends is kept until the guest has acknowledged it. The wire between the guest and us does not lose or reorder, but the
guest may drop what it has no memory for, so there are retransmissions, by RFC 9293 and 6298 without their finer points.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
import struct
from collections import deque
from contextlib import suppress
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Final, NamedTuple

from firkin.network.frames import ACK, FIN, RST, SYN, Segment
from firkin.network.plan import LARGEST_MTU

if TYPE_CHECKING:
    from firkin.network.stack import Stack

__all__ = ["Connection", "Flow", "FlowKey"]

_MASK: Final = 0xFFFFFFFF
_SCALE: Final = 7
_DEFAULT_MSS: Final = 536
# Seconds: until the first retransmission, the longest, and between looks at a closed window.
_FIRST_RTO, _LONGEST_RTO = 0.5, 8.0
_MOST_TRIES: Final = 12
_READS: Final = 4
_LEAST_SEGMENT: Final = 2048
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class FlowKey(NamedTuple):
    """The other end's address and port, and the guest's port."""

    remote: bytes
    port: int
    guest_port: int


class Connection(NamedTuple):
    """What a saved guest believes that it has; `seq` is a number that it has acknowledged."""

    remote: str
    port: int
    guest_port: int
    seq: int


class State(enum.Enum):
    CONNECTING = enum.auto()
    """The guest waits for the host's connect."""
    CALLING = enum.auto()
    """We wait for the guest's answer to our SYN."""
    ANSWERED = enum.auto()
    """We wait for the guest to acknowledge our SYN."""
    OPEN = enum.auto()
    CLOSED = enum.auto()


class _Sent(NamedTuple):
    flags: int
    payload: memoryview | bytes

    @property
    def size(self) -> int:
        return len(self.payload) + (1 if self.flags & (SYN | FIN) else 0)


class Flow:
    """Made by `Flow.outward` for a SYN of the guest, or `Flow.inward` for a connection to a published port."""

    def __init__(self, stack: Stack, key: FlowKey, sock: socket.socket, state: State) -> None:
        self.key = key
        self.state = state
        self.published = False
        # The allowed name that had the address when the connection began, if it took one.
        self.name = ""
        self._stack = stack
        self._sock = sock
        self._watched = 0
        self._ip_overhead = 20 if len(key.remote) == 4 else 40
        self._mss = _DEFAULT_MSS
        # To the guest: what is sent and not acknowledged, its first number, the next number, the guest's window.
        self._unacked: deque[_Sent] = deque()
        self._una = self._next = int.from_bytes(os.urandom(4), "big")
        self._window = 0
        self._scale = 0
        self._scaled = False
        self._recover: int | None = None
        self._tries = 0
        self._rto = _FIRST_RTO
        self.deadline = 0.0
        self._host_ended = False
        # From the guest: the next number, and what the host's socket has not taken yet.
        self._expected = 0
        self._pending: deque[memoryview] = deque()
        self._pending_size = 0
        self._guest_ended = False
        self._ack_due = False
        self._advertised = 0

    @classmethod
    def outward(cls, stack: Stack, key: FlowKey, sock: socket.socket, syn: Segment) -> Flow:
        """The guest called; `sock` is connecting. The guest is answered when that is done."""
        flow = cls(stack, key, sock, State.CONNECTING)
        flow._accept_options(syn)
        flow._expected = (syn.seq + 1) & _MASK
        flow._window = syn.window
        flow._watch(EPOLLOUT)
        return flow

    @classmethod
    def inward(cls, stack: Stack, key: FlowKey, sock: socket.socket) -> Flow:
        """Somebody called a published port: `sock` is connected, the guest is called."""
        flow = cls(stack, key, sock, State.CALLING)
        flow.published = True
        flow._send(SYN)
        return flow

    @property
    def connection(self) -> Connection | None:
        """None while neither end is sure of it."""
        if self.state is not State.OPEN:
            return None
        family = socket.AF_INET if len(self.key.remote) == 4 else socket.AF_INET6
        return Connection(socket.inet_ntop(family, self.key.remote), self.key.port, self.key.guest_port, self._una)

    @property
    def _flight(self) -> int:
        return (self._next - self._una) & _MASK

    def _accept_options(self, syn: Segment) -> None:
        room = LARGEST_MTU - self._ip_overhead - 20
        self._mss = max(88, min(syn.mss or _DEFAULT_MSS, room))
        if syn.scale is not None:
            self._scale, self._scaled = syn.scale, True

    # ---- the host's side

    def _watch(self, wanted: int) -> None:
        if wanted != self._watched:
            self._watched = wanted
            self._stack.watch(self._sock, wanted, self._on_host)

    def _interest(self) -> None:
        """Watch for what can be done now: reading where the guest has room, writing where something waits."""
        if self.state is not State.OPEN:
            return
        reading = EPOLLIN if not self._host_ended and self._may_send() and not self._stack.blocked(self) else 0
        self._watch(reading | (EPOLLOUT if self._pending else 0))

    def resume(self) -> None:
        """The wire to the guest takes frames again."""
        self._interest()

    def _room(self) -> int:
        """How much may be sent to the guest now."""
        return min(self._window, self._stack.flow_limit) - self._flight

    def _may_send(self) -> bool:
        room = self._room()
        # Not a few bytes where more room is about to come.
        return room > 0 and not (self._flight and room < min(self._mss, _LEAST_SEGMENT))

    def _on_host(self, events: int) -> None:
        if self.state is State.CONNECTING:
            self._connected()
            return
        if events & EPOLLOUT:
            self._drain()
        if self.state is State.OPEN and events & (EPOLLIN | EPOLLHUP | EPOLLERR):
            self._read_host()

    def _connected(self) -> None:
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error:
            try:
                self._sock.getpeername()
            except OSError:
                return  # an event of a descriptor that had this number before
            self.state = State.ANSWERED
            self._watch(0)
            self._send(SYN | ACK)
            return
        self.close()
        if error == errno.ECONNREFUSED:
            self._stack.send_tcp(self.key, 0, self._expected, RST | ACK, 0)
        else:
            self._stack.unreachable(self.key, "tcp", (self._expected - 1) & _MASK)

    def _read_host(self) -> None:
        for _ in range(_READS):
            if self._host_ended or not self._may_send() or self._stack.blocked(self):
                break
            try:
                data = self._sock.recv(min(self._room(), self._mss))
            except BlockingIOError:
                break
            except OSError:
                self.reset()
                return
            if not data:
                self._host_ended = True
                self._send(FIN | ACK)
                break
            self._send(ACK, data)
        self._interest()

    def _drain(self) -> None:
        while self._pending:
            chunk = self._pending[0]
            try:
                sent = self._sock.send(chunk)
            except BlockingIOError:
                break
            except OSError:
                self.reset()
                return
            self._pending_size -= sent
            if sent < len(chunk):
                self._pending[0] = chunk[sent:]
                break
            self._pending.popleft()
        if not self._pending and self._guest_ended:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        # The guest may have stopped at a window that was nearly closed.
        if self._advertised < self._receive_window() // 2:
            self._owe_ack()
        self._interest()
        self._finish()

    # ---- the guest's side

    def segment(self, segment: Segment) -> bool:
        """Take a segment of the guest; False where it is a SYN that begins another connection."""
        if segment.flags & RST:
            # Only the guest itself could forge one; it need not be exact.
            self.close(reset=True)
            return True
        if segment.flags & SYN:
            return self._on_syn(segment)
        if not segment.flags & ACK or self.state in (State.CONNECTING, State.CALLING):
            return True
        if not self._on_ack(segment):
            return True
        if segment.payload or segment.flags & FIN:
            self._on_data(segment)
        self._interest()
        self._finish()
        return True

    def _on_syn(self, syn: Segment) -> bool:
        if self.state is State.CALLING and syn.flags & ACK and syn.ack == self._next:
            self._accept_options(syn)
            self._expected = (syn.seq + 1) & _MASK
            self._acknowledged(syn.ack)
            self._window = syn.window
            self.state = State.OPEN
            self._owe_ack()
            self._interest()
            return True
        if syn.flags & ACK:
            # Again, since our acknowledgement was late.
            if self.state is State.OPEN:
                self._owe_ack()
            return True
        # The same SYN again: our answer is on its way.
        again = self.state in (State.CONNECTING, State.ANSWERED) and (syn.seq + 1) & _MASK == self._expected
        return again or self.state is State.CALLING

    def _on_ack(self, segment: Segment) -> bool:
        """Note what the guest acknowledges; False where the connection ended or is another's."""
        advance = (segment.ack - self._una) & _MASK
        if advance > self._flight:
            if self.state is State.ANSWERED:
                self.reset()
                return False
            return advance > _MASK >> 1  # an old one; a new one of what was never sent is dropped
        window = segment.window << self._scale
        if advance:
            self._acknowledged(segment.ack)
            if self.state is State.ANSWERED:
                self.state = State.OPEN
        self._window = window
        if not self._unacked:
            # A closed window is looked at again, in case the news of its opening was lost.
            self.deadline = 0.0 if window else self._stack.now + _LONGEST_RTO
        return True

    def _acknowledged(self, ack: int) -> None:
        advance = (ack - self._una) & _MASK
        self._una = ack
        while advance and self._unacked:
            head = self._unacked[0]
            if advance >= head.size:
                advance -= head.size
                self._unacked.popleft()
            else:
                self._unacked[0] = _Sent(head.flags, memoryview(head.payload)[advance:])
                advance = 0
        self._tries, self._rto = 0, _FIRST_RTO
        self.deadline = self._stack.now + self._rto if self._unacked else 0.0
        if self._recover is not None:
            if self._unacked and (self._recover - ack) & _MASK <= _MASK >> 1 and self._recover != ack:
                self._resend()
            else:
                self._recover = None

    def _on_data(self, segment: Segment) -> None:
        payload = segment.payload
        before = (self._expected - segment.seq) & _MASK
        self._owe_ack()
        if before > _MASK >> 1 or self._guest_ended:
            return  # something before it is missing, or it came after the end
        if before:
            if before > len(payload):
                return
            payload = payload[before:]
        room = self._receive_window()
        whole = len(payload) <= room
        payload = payload[:room]
        if payload:
            self._expected = (self._expected + len(payload)) & _MASK
            self._write_host(payload)
        if segment.flags & FIN and whole and self.state is State.OPEN:
            self._expected = (self._expected + 1) & _MASK
            self._guest_ended = True
            if not self._pending:
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_WR)

    def _write_host(self, payload: memoryview) -> None:
        sent = 0
        if not self._pending:
            try:
                sent = self._sock.send(payload)
            except BlockingIOError:
                pass
            except OSError:
                self.reset()
                return
        if sent < len(payload):
            # A copy: the view is into the buffer that the next frames are read to.
            rest = memoryview(bytes(payload[sent:]))
            self._pending.append(rest)
            self._pending_size += len(rest)

    def _receive_window(self) -> int:
        window = max(0, self._stack.flow_limit - self._pending_size)
        return window if self._scaled else min(window, 0xFFFF)

    def _owe_ack(self) -> None:
        if not self._ack_due:
            self._ack_due = True
            self._stack.owe_ack(self)

    def acknowledge(self) -> None:
        """Send the acknowledgement that is due, unless data has carried it meanwhile."""
        if self._ack_due and self.state not in (State.CLOSED, State.CONNECTING):
            self._transmit(self._next, ACK, b"")

    def _send(self, flags: int, payload: bytes = b"") -> None:
        sent = _Sent(flags, payload)
        self._unacked.append(sent)
        self._transmit(self._next, flags, payload)
        self._next = (self._next + sent.size) & _MASK
        if not self.deadline or len(self._unacked) == 1:
            self.deadline = self._stack.now + self._rto

    def _transmit(self, seq: int, flags: int, payload: memoryview | bytes) -> None:
        window = self._receive_window()
        options = b""
        if flags & SYN:
            options = struct.pack("!BBH", 2, 4, LARGEST_MTU - self._ip_overhead - 20)
            if self._scaled or not flags & ACK:
                options += struct.pack("!BBBB", 1, 3, 3, _SCALE)
            self._advertised = min(window, 0xFFFF)
            field = self._advertised
        else:
            shift = _SCALE if self._scaled else 0
            field = min(window >> shift, 0xFFFF)
            self._advertised = field << shift
        self._ack_due = False
        ack = self._expected if flags & ACK else 0
        self._stack.send_tcp(self.key, seq, ack, flags, field, options, payload)

    def _resend(self) -> None:
        head = self._unacked[0]
        self._transmit(self._una, head.flags, head.payload)

    def expire(self) -> None:
        """The retransmission timer, or that of a closed window, has run out."""
        if not self._unacked:
            # A number already acknowledged makes the guest tell its window.
            self._transmit((self._next - 1) & _MASK, ACK, b"")
            self.deadline = self._stack.now + _LONGEST_RTO
            return
        self._tries += 1
        if self._tries > _MOST_TRIES:
            self.reset()
            return
        self._rto = min(self._rto * 2, _LONGEST_RTO)
        self.deadline = self._stack.now + self._rto
        self._recover = self._next
        self._resend()

    # ---- the end

    def _finish(self) -> None:
        done = self._guest_ended and self._host_ended and not self._pending and not self._unacked
        if done and self.state is State.OPEN:
            if self._ack_due:
                self._transmit(self._next, ACK, b"")
            self.close()

    def reset(self) -> None:
        """Break both ends off."""
        if self.state is State.CLOSED:
            return
        if self.state is State.CONNECTING:
            self._stack.send_tcp(self.key, 0, self._expected, RST | ACK, 0)
        else:
            self._stack.send_tcp(self.key, self._next, self._expected, RST | ACK, 0)
        self.close(reset=True)

    def close(self, *, reset: bool = False) -> None:
        """Let go of the host's socket, by a reset where the end is not a proper one."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.deadline = 0.0
        self._stack.unwatch(self._sock)
        if reset:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()
        self._stack.forget(self)
