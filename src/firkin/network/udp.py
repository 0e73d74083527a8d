"""UDP of the guest: each pair of its port and a destination is a connected socket of the host, so that only that
destination's answers come in."""

from __future__ import annotations

import socket
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from firkin.network.frames import Datagram, Packet
from firkin.network.plan import INSIDE
from firkin.network.tcp import FlowKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from firkin.network.stack import Stack

__all__ = ["Datagrams"]

_MOST: Final = 1024
# Seconds without a datagram either way; an answer of DNS or NTP takes one or two, a stream sends all the time.
_IDLE: Final = 120.0
_READS: Final = 16
_JUDGED_FOR: Final = 1.0
# What fits into a frame to the guest.
_LARGEST: Final = 65_520 - 40 - 8


@dataclass(slots=True)
class _Socket:
    sock: socket.socket
    used: float
    judged: float


class Datagrams:
    """A bounded table; where it is full the one that was used the longest ago goes.

    `published`: what takes the guest's datagrams to clients of published ports, by the gateway's port.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._sockets: OrderedDict[FlowKey, _Socket] = OrderedDict()
        self.published: dict[tuple[int, int], Callable[[bytes], None]] = {}

    @property
    def any(self) -> bool:
        """Whether there is something to look after."""
        return bool(self._sockets or self.published)

    def send(self, packet: Packet, datagram: Datagram) -> None:
        """Send the guest's datagram on, if it may go there."""
        if packet.destination == INSIDE[4].gateway and (
            back := self.published.get((datagram.port, datagram.source_port))
        ):
            back(bytes(datagram.payload))
            return
        key = FlowKey(packet.destination, datagram.port, datagram.source_port)
        entry = self._sockets.get(key)
        if entry is not None and self._stack.now - entry.judged > _JUDGED_FOR:
            # An allowed name's time may be over, an address may be the host's by now.
            self._drop(key)
            entry = None
        if entry is None and (entry := self._open(key)) is None:
            return
        entry.used = self._stack.now
        self._sockets.move_to_end(key)
        try:
            entry.sock.send(datagram.payload)
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            self._stack.unreachable(key, "udp")
        except OSError:
            self._drop(key)

    def _open(self, key: FlowKey) -> _Socket | None:
        target = self._stack.target(key.remote, key.port, "udp")
        if target is None:
            self._stack.prohibited(key, "udp")
            return None
        family = socket.AF_INET if len(target) == 4 else socket.AF_INET6
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            sock.connect((socket.inet_ntop(family, target), key.port))
        except OSError:
            if sock is not None:
                sock.close()
            self._stack.unreachable(key, "udp")
            return None
        if len(self._sockets) >= _MOST:
            self._drop(next(iter(self._sockets)))
        entry = self._sockets[key] = _Socket(sock, self._stack.now, self._stack.now)
        self._stack.watch(sock, 1, lambda _events: self._came(key, sock))
        return entry

    def _came(self, key: FlowKey, sock: socket.socket) -> None:
        for _ in range(_READS):
            try:
                data = sock.recv(0x10000)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                self._stack.unreachable(key, "udp")
                return
            except OSError:
                self._drop(key)
                return
            if (entry := self._sockets.get(key)) is not None:
                entry.used = self._stack.now
            if len(data) <= _LARGEST:
                self._stack.send_udp(key.remote, key.port, key.guest_port, data)

    def expire(self) -> None:
        """Close what nobody used for long."""
        for key, entry in tuple(self._sockets.items()):
            if self._stack.now - entry.used > _IDLE:
                self._drop(key)

    def judge(self) -> None:
        """Close what the policy does not allow any more."""
        for key in tuple(self._sockets):
            if self._stack.target(key.remote, key.port, "udp") is None:
                self._drop(key)

    def _drop(self, key: FlowKey) -> None:
        entry = self._sockets.pop(key)
        self._stack.unwatch(entry.sock)
        entry.sock.close()

    def close(self) -> None:
        """Drop every exchange."""
        for key in tuple(self._sockets):
            self._drop(key)
