"""What the guest sends is read with every length checked, and what is sent to it is well-formed."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.network import frames
from firkin.network.frames import MalformedError, checksum, parse_ip, parse_tcp, parse_udp

A, B = bytes((192, 0, 0, 1)), bytes((192, 0, 0, 2))
A6, B6 = bytes(15) + b"\1", bytes(15) + b"\2"


def plain_checksum(data: bytes) -> int:
    """RFC 1071, section 4.1, word by word."""
    total = 0
    for index in range(0, len(data), 2):
        total += int.from_bytes(data[index : index + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=3000))
def test_checksum_is_that_of_the_rfc(data: bytes) -> None:
    # All zeros have no sum of their own: 0 and 0xFFFF are the same number there.
    assert checksum(data) % 0xFFFF == plain_checksum(data) % 0xFFFF


def test_checksum_of_a_large_frame() -> None:
    data = bytes(range(256)) * 256
    assert checksum(data[:1000], data[1000:]) == plain_checksum(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    for parse in (parse_ip, parse_tcp, parse_udp):
        try:
            parse(memoryview(data))
        except MalformedError:
            continue
        assert len(data) >= 8


@given(st.binary(min_size=20, max_size=200), st.integers(0, 255), st.sampled_from((0x45, 0x60)))
def test_random_packets_stay_within_their_bytes(data: bytes, length: int, first: int) -> None:
    packet = bytes((first,)) + data[1:2] + length.to_bytes(2, "big") + data[4:]
    try:
        found = parse_ip(memoryview(packet))
    except MalformedError:
        return
    assert len(found.payload) <= len(packet)


@pytest.mark.parametrize(("one", "two"), [(A, B), (A6, B6)], ids=["IPv4", "IPv6"])
@given(st.binary(max_size=2000), st.integers(1, 65535), st.integers(1, 65535))
def test_udp_round_trip(one: bytes, two: bytes, data: bytes, source: int, port: int) -> None:
    packet = b"".join(frames.udp_packet(one, source, two, port, data)) + data
    found = parse_ip(memoryview(packet + b"padding"))
    assert (found.source, found.destination, found.protocol) == (one, two, frames.UDP)
    datagram = parse_udp(found.payload)
    assert (datagram.source_port, datagram.port, bytes(datagram.payload)) == (source, port, data)
    covered = frames.pseudo(one, two, frames.UDP, len(found.payload))
    assert plain_checksum(covered + bytes(found.payload)) == 0


@pytest.mark.parametrize(("one", "two"), [(A, B), (A6, B6)], ids=["IPv4", "IPv6"])
@given(st.binary(max_size=2000), st.integers(0, 2**32 - 1), st.integers(0, 65535))
def test_tcp_round_trip(one: bytes, two: bytes, data: bytes, seq: int, window: int) -> None:
    options = struct.pack("!BBHBBBB", 2, 4, 1460, 1, 3, 3, 7)
    header = frames.tcp_header(one, 80, two, 90, seq, 5, frames.SYN, window, options, data)
    segment = parse_tcp(memoryview(header + data))
    assert (segment.seq, segment.window, segment.mss, segment.scale) == (seq, window, 1460, 7)
    assert bytes(segment.payload) == data
    covered = frames.pseudo(one, two, frames.TCP, len(header) + len(data))
    assert plain_checksum(covered + header + data) == 0


def test_the_kernel_takes_our_ip_header() -> None:
    header = frames.ip_header(A, B, frames.UDP, 8)
    assert plain_checksum(header) == 0
    assert socket.inet_ntoa(header[12:16]) == "192.0.0.1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({6: 0x20}, "fragment"),
        ({7: 0x01}, "fragment"),
        ({0: 0x46}, "options"),
        ({0: 0x44}, "options"),
        ({0: 0x55}, "version"),
        ({3: 19}, "length"),
        ({2: 1}, "length"),
    ],
)
def test_ipv4_that_is_not_taken(change: dict[int, int], reason: str) -> None:
    packet = bytearray(frames.ip_header(A, B, frames.UDP, 8) + bytes(8))
    for at, value in change.items():
        packet[at] = value
    with pytest.raises(MalformedError, match=reason):
        parse_ip(memoryview(bytes(packet)))


@pytest.mark.parametrize(
    ("number", "reason"), [(0, "extension"), (43, "extension"), (44, "fragment"), (60, "extension")]
)
def test_ipv6_headers_that_are_not_taken(number: int, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        parse_ip(memoryview(frames.ip_header(A6, B6, number, 8) + bytes(8)))


@pytest.mark.parametrize("options", [b"\2", b"\2\0", b"\2\5ab", b"\3\1", b"\1\1\1\2"])
def test_tcp_options_that_are_not_whole(options: bytes) -> None:
    words = options.ljust((len(options) + 3) & ~3, b"\xfe")
    header = frames.tcp_header(A, 1, B, 2, 0, 0, frames.SYN, 0, words)
    with pytest.raises(MalformedError, match="options"):
        parse_tcp(memoryview(header))
