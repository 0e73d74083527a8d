"""ARP, neighbour discovery, ping and the errors of ICMP: what a host expects of its router."""

from __future__ import annotations

import socket
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from firkin.network import frames
from firkin.network.frames import MalformedError, Packet
from firkin.network.plan import GATEWAY_MAC, INSIDE
from firkin.network.tcp import FlowKey

if TYPE_CHECKING:
    from firkin.network.policy import Protocol
    from firkin.network.stack import Stack

__all__ = ["Echo", "arp", "icmp6", "is_quiet", "unreachable"]

_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
# RFC 4443, 4861
_ECHO6, _ECHO_REPLY6, _ROUTER_ADVERT, _SOLICIT, _ADVERT = 128, 129, 134, 135, 136
_QUIET6: Final = frozenset({130, 131, 132, 133, 143})
_UNSPECIFIED6 = bytes(16)
_LINK_LOCAL6 = b"\xfe\x80"
_PINGS, _PING_IDLE = 64, 30.0


def arp(stack: Stack, message: memoryview) -> None:
    """Answer a question for the gateway. Raises `MalformedError` for what a guest has no reason to say."""
    if len(message) < _ARP.size:
        raise MalformedError("short")
    hardware, kind, size, length, operation, mac, sender, _, asked = _ARP.unpack_from(message)
    side = INSIDE[4]
    if (hardware, kind, size, length) != (1, frames.IPV4, 6, 4) or operation not in (_REQUEST, _REPLY):
        raise MalformedError("malformed")
    if sender not in (side.guest, bytes(4)) or mac != stack.mac:
        raise MalformedError("source")
    if operation == _REQUEST and asked == side.gateway:
        answer = _ARP.pack(1, frames.IPV4, 6, 4, _REPLY, GATEWAY_MAC, side.gateway, mac, sender)
        stack.send_frame(frames.ARP, answer)
    elif operation == _REPLY or asked != side.guest:
        raise MalformedError("neighbour")


def icmp6(stack: Stack, packet: Packet) -> bool:
    """Take what belongs to neighbour discovery; False for the rest. Raises `MalformedError`."""
    message = packet.payload
    if len(message) < 4:
        raise MalformedError("short")
    kind, side = message[0], INSIDE[6]
    if kind in _QUIET6:
        return True
    if kind == _SOLICIT:
        if len(message) < 24:
            raise MalformedError("short")
        # From the unspecified address it asks whether somebody else has its own: nobody has.
        if packet.source != _UNSPECIFIED6 and not _own6(packet.source):
            raise MalformedError("source")
        asked = bytes(message[8:24])
        if asked == side.gateway and packet.source != _UNSPECIFIED6:
            body = struct.pack("!BBHI", _ADVERT, 0, 0, 0xE0000000) + asked + b"\2\1" + GATEWAY_MAC
            stack.send_packet(6, *_icmp(side.gateway, packet.source, body))
        elif asked != side.gateway and not _own6(asked):
            raise MalformedError("neighbour")
        return True
    if kind == _ADVERT and _own6(packet.source) and len(message) >= 24 and _own6(bytes(message[8:24])):
        return True
    if 133 <= kind <= 137:
        raise MalformedError("neighbour")
    return False


def _own6(address: bytes) -> bool:
    return address == INSIDE[6].guest or address.startswith(_LINK_LOCAL6)


def is_quiet(packet: Packet) -> bool:
    """Whether a packet from another source is what any kernel sends by itself: from its link-local address."""
    return packet.version == 6 and packet.source.startswith(_LINK_LOCAL6) and packet.protocol == frames.ICMP6


def _icmp(source: bytes, destination: bytes, body: bytes) -> tuple[bytes, bytes]:
    """An IP packet with the ICMP message `body`, whose checksum is still zero."""
    protocol = frames.ICMP if len(source) == 4 else frames.ICMP6
    covered = frames.pseudo(source, destination, protocol, len(body)) if len(source) == 16 else b""
    total = frames.checksum(covered, body)
    return frames.ip_header(source, destination, protocol, len(body)), body[:2] + total.to_bytes(2, "big") + body[4:]


def unreachable(stack: Stack, key: FlowKey, protocol: Protocol, *, seq: int, prohibited: bool) -> None:
    """An ICMP error for a packet of the guest, which then fails at once: the host (a closed port of it, for UDP) can't
    be reached, or communication with it is prohibited (RFC 792, 1812, 4443). `seq` is a TCP packet's number."""
    version = 4 if len(key.remote) == 4 else 6
    side = INSIDE[version]
    number = frames.TCP if protocol == "tcp" else frames.UDP
    # The kernel finds the socket by the addresses and the first eight bytes, and a TCP's must have the number.
    ports = struct.pack("!HH", key.guest_port, key.port)
    quoted = frames.ip_header(side.guest, key.remote, number, 8) + ports + struct.pack("!HH", 8, 0)
    if number == frames.TCP:
        quoted = frames.ip_header(side.guest, key.remote, number, 20) + ports + seq.to_bytes(4, "big") + bytes(12)
    if version == 4:
        code = 13 if prohibited else 3 if protocol == "udp" else 1
        kind = 3
    else:
        code = 1 if prohibited else 4 if protocol == "udp" else 3
        kind = 1
    stack.send_packet(version, *_icmp(side.gateway, side.guest, struct.pack("!BBHI", kind, code, 0, 0) + quoted))


class _Ping(NamedTuple):
    sock: socket.socket
    used: float


class Echo:
    """Ping: the gateway answers itself, others are asked by the host's ping sockets where it lets us (icmp(7),
    ping_group_range)."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._pings: OrderedDict[tuple[bytes, int], _Ping] = OrderedDict()

    def request(self, packet: Packet) -> None:
        """Take an ICMP message of the guest. Raises `MalformedError`."""
        message = bytes(packet.payload)
        if len(message) < 8:
            raise MalformedError("short")
        wanted, reply = (8, 0) if packet.version == 4 else (_ECHO6, _ECHO_REPLY6)
        if message[0] != wanted:
            return  # the guest's errors and answers are nobody's business here
        if packet.destination == INSIDE[packet.version].gateway:
            self._answer(packet.destination, bytes((reply, 0, 0, 0)) + message[4:])
            return
        key = (packet.destination, int.from_bytes(message[4:6], "big"))
        if self._stack.target(packet.destination, 0, "icmp") is None:
            return
        if (sock := self._socket(key)) is not None:
            try:
                sock.send(bytes((wanted, 0, 0, 0)) + message[4:])
            except OSError:
                self._drop(key)

    def _socket(self, key: tuple[bytes, int]) -> socket.socket | None:
        if key in self._pings:
            sock = self._pings.pop(key).sock
        else:
            family = socket.AF_INET if len(key[0]) == 4 else socket.AF_INET6
            protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
                sock.connect((socket.inet_ntop(family, key[0]), 0))
            except OSError:
                return None
            if len(self._pings) >= _PINGS:
                self._drop(next(iter(self._pings)))
            self._stack.watch(sock, 1, lambda _events: self._came(key))
        self._pings[key] = _Ping(sock, self._stack.now)
        return sock

    def _came(self, key: tuple[bytes, int]) -> None:
        try:
            message = self._pings[key].sock.recv(0x10000)
        except BlockingIOError:
            return
        except OSError:
            self._drop(key)
            return
        if len(message) >= 8:
            # The host's kernel has put a number of its own in the place of the guest's.
            self._answer(key[0], message[:2] + b"\0\0" + key[1].to_bytes(2, "big") + message[6:])

    def _answer(self, source: bytes, body: bytes) -> None:
        version = 4 if len(source) == 4 else 6
        self._stack.send_packet(version, *_icmp(source, INSIDE[version].guest, body))

    def expire(self) -> None:
        """Close what was not used for a while."""
        for key, ping in tuple(self._pings.items()):
            if self._stack.now - ping.used > _PING_IDLE:
                self._drop(key)

    def _drop(self, key: tuple[bytes, int]) -> None:
        ping = self._pings.pop(key)
        self._stack.unwatch(ping.sock)
        ping.sock.close()

    def close(self) -> None:
        """Drop every ping under way."""
        for key in tuple(self._pings):
            self._drop(key)
