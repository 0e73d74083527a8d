"""Ethernet, IPv4, IPv6, TCP and UDP: what the guest sent, with every length checked; and frames to the guest.

The guest is hostile, so only what a well-behaved one needs is understood: no fragments, no IPv4 options, no IPv6
extension headers. Checksums of what comes in are not verified: there is no line between the guest and us that could
damage it, and a guest that lies hurts itself.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = [
    "ACK", "ARP", "FIN", "ICMP", "ICMP6", "IPV4", "IPV6", "RARP", "RST", "SYN", "TCP", "UDP",
    "Datagram", "MalformedError", "Packet", "Segment", "checksum", "ethernet", "ip_header", "parse_ip",
    "parse_tcp", "parse_udp", "pseudo", "tcp_header", "udp_packet",
]  # fmt: skip

IPV4: Final = 0x0800
IPV6: Final = 0x86DD
ARP: Final = 0x0806
RARP: Final = 0x8035
"""QEMU announces a restored VM by it."""
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMP6: Final = 58
FIN: Final = 1
SYN: Final = 2
RST: Final = 4
PSH: Final = 8
ACK: Final = 16

_IP4 = struct.Struct("!BBHHHBBH4s4s")
_IP6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIBBHHH")
_UDP = struct.Struct("!HHHH")
_FRAGMENT_MASK = 0xBFFF
_FRAGMENT6 = 44
_DIVIDED = 4096


class MalformedError(Exception):
    """The guest sent what is not taken; the text is the reason in one word."""


class Packet(NamedTuple):
    """An IP packet. `payload` is a view into the frame: whoever keeps it copies it."""

    version: int
    source: bytes
    destination: bytes
    protocol: int
    payload: memoryview


class Segment(NamedTuple):
    """A TCP segment; `mss` and `scale` are None where the option is not there."""

    source_port: int
    port: int
    seq: int
    ack: int
    flags: int
    window: int
    mss: int | None
    scale: int | None
    payload: memoryview


class Datagram(NamedTuple):
    """A UDP datagram."""

    source_port: int
    port: int
    payload: memoryview


def checksum(*parts: bytes | memoryview) -> int:
    """The Internet checksum (RFC 1071) of `parts`; all but the last have an even length.

    The ones' complement sum of 16-bit words is the number that they spell, modulo 2^16 - 1. A long number is folded by
    halves first: additions run several times as fast as the division.
    """
    total = 0
    for part in parts:
        number = int.from_bytes(part, "big")
        if len(part) & 1:
            number <<= 8
        bits = number.bit_length()
        while bits > _DIVIDED:
            half = (bits // 2 + 15) & ~15
            number = (number >> half) + (number & ((1 << half) - 1))
            bits = half + 1
        total += number % 0xFFFF
    return 0xFFFF - total % 0xFFFF


def ethernet(destination: bytes, source: bytes, kind: int) -> bytes:
    """An Ethernet header."""
    return destination + source + kind.to_bytes(2, "big")


def parse_ip(packet: memoryview) -> Packet:
    """An IP packet of either version; what follows its stated length is padding. Raises `MalformedError`."""
    if len(packet) < 20:
        raise MalformedError("short")
    version = packet[0] >> 4
    if version == 4:
        return _parse_ip4(packet)
    if version == 6:
        return _parse_ip6(packet)
    raise MalformedError("version")


def _parse_ip4(packet: memoryview) -> Packet:
    first, _, total, _, fragment, _, protocol, _, source, destination = _IP4.unpack_from(packet)
    if first != 0x45:
        raise MalformedError("options")
    if not 20 <= total <= len(packet):
        raise MalformedError("length")
    if fragment & _FRAGMENT_MASK:
        raise MalformedError("fragment")
    return Packet(4, source, destination, protocol, packet[20:total])


def _parse_ip6(packet: memoryview) -> Packet:
    if len(packet) < 40:
        raise MalformedError("short")
    _, length, protocol, _, source, destination = _IP6.unpack_from(packet)
    if 40 + length > len(packet):
        raise MalformedError("length")
    if protocol not in (TCP, UDP, ICMP6):
        raise MalformedError("fragment" if protocol == _FRAGMENT6 else "extension")
    return Packet(6, source, destination, protocol, packet[40 : 40 + length])


def parse_tcp(payload: memoryview) -> Segment:
    """Raises `MalformedError`."""
    if len(payload) < 20:
        raise MalformedError("short")
    source_port, port, seq, ack, offset, flags, window, _, _ = _TCP.unpack_from(payload)
    header = (offset >> 4) * 4
    if not 20 <= header <= len(payload):
        raise MalformedError("length")
    if not source_port or not port:
        raise MalformedError("port")
    # Only a SYN's options mean anything to us.
    mss, scale = _tcp_options(payload[20:header]) if flags & SYN and header > 20 else (None, None)
    return Segment(source_port, port, seq, ack, flags, window, mss, scale, payload[header:])


def _tcp_options(options: memoryview) -> tuple[int | None, int | None]:
    mss = scale = None
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            raise MalformedError("options")
        if options[at] == 2 and size == 4:
            mss = int.from_bytes(options[at + 2 : at + 4], "big")
        elif options[at] == 3 and size == 3:
            scale = min(options[at + 2], 14)
        at += size
    return mss, scale


def parse_udp(payload: memoryview) -> Datagram:
    """Raises `MalformedError`."""
    if len(payload) < 8:
        raise MalformedError("short")
    source_port, port, length, _ = _UDP.unpack_from(payload)
    if not 8 <= length <= len(payload):
        raise MalformedError("length")
    if not source_port or not port:
        raise MalformedError("port")
    return Datagram(source_port, port, payload[8:length])


def ip_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """The IP header of a payload of `length` bytes, of the version that the addresses have."""
    if len(source) == 16:
        # Neighbour discovery takes nothing that a router has passed on (RFC 4861, section 7.1).
        return _IP6.pack(6 << 28, length, protocol, 255 if protocol == ICMP6 else 64, source, destination)
    header = _IP4.pack(0x45, 0, 20 + length, 0, 0x4000, 64, protocol, 0, source, destination)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:]


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """What a transport's checksum covers besides its own bytes (RFC 9293, 8200)."""
    return source + destination + struct.pack("!II", protocol, length)


def tcp_header(
    source: bytes,
    source_port: int,
    destination: bytes,
    port: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes = b"",
    payload: bytes | memoryview = b"",
) -> bytes:
    """A TCP header for `payload`, which is not part of it; `options` are whole words."""
    offset = (20 + len(options)) << 2
    header = _TCP.pack(source_port, port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, offset, flags, window, 0, 0) + options
    total = checksum(pseudo(source, destination, TCP, len(header) + len(payload)), header, payload)
    return header[:16] + total.to_bytes(2, "big") + header[18:]


def udp_packet(
    source: bytes, source_port: int, destination: bytes, port: int, payload: bytes | memoryview
) -> tuple[bytes, bytes]:
    """The IP and UDP headers for `payload`."""
    length = 8 + len(payload)
    header = _UDP.pack(source_port, port, length, 0)
    total = checksum(pseudo(source, destination, UDP, length), header, payload) or 0xFFFF
    return ip_header(source, destination, UDP, length), header[:6] + total.to_bytes(2, "big")
