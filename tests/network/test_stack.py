"""The stack against a guest made of single frames, without a VM: what no well-behaved kernel would show."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from firkin.network import Network, NetworkPlan, Policy, frames
from firkin.network.frames import ACK, FIN, RST, SYN, Packet, Segment, parse_ip, parse_tcp
from firkin.network.plan import GATEWAY_MAC, INSIDE
from firkin.network.ports import bind

MAC = bytes.fromhex("020000000001")
GUEST, GATEWAY = INSIDE[4].guest, INSIDE[4].gateway
GUEST6, GATEWAY6 = INSIDE[6].guest, INSIDE[6].gateway


class Cable:
    """The guest's end: frames in and out."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._sock = network.guest
        self._sock.settimeout(5)

    def send(self, kind: int, payload: bytes) -> None:
        frame = frames.ethernet(GATEWAY_MAC, MAC, kind) + payload
        self._sock.sendall(len(frame).to_bytes(4, "big") + frame)

    def receive(self) -> tuple[int, memoryview]:
        """The next frame's type and payload."""
        size = int.from_bytes(self._sock.recv(4, socket.MSG_WAITALL), "big")
        frame = self._sock.recv(size, socket.MSG_WAITALL)
        assert frame[:12] == MAC + GATEWAY_MAC
        return int.from_bytes(frame[12:14], "big"), memoryview(frame)[14:]

    def packet(self) -> Packet:
        return parse_ip(self.receive()[1])

    def silent(self, seconds: float = 0.2) -> bool:
        self._sock.settimeout(seconds)
        try:
            self._sock.recv(4, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self._sock.settimeout(5)
        return False


class Peer:
    """A TCP of the guest, moved by hand."""

    def __init__(self, cable: Cable, port: int, guest_port: int = 4000, remote: bytes = GATEWAY) -> None:
        self.cable, self.port, self.guest_port, self.remote = cable, port, guest_port, remote
        self.next, self.expected = 1000, 0

    def send(self, flags: int, data: bytes = b"", *, window: int = 65535, seq: int | None = None) -> None:
        number = self.next if seq is None else seq
        header = frames.tcp_header(
            GUEST, self.guest_port, self.remote, self.port, number, self.expected, flags, window, b"", data
        )
        ip = frames.ip_header(GUEST, self.remote, frames.TCP, len(header) + len(data))
        self.cable.send(frames.IPV4, ip + header + data)
        if seq is None:
            self.next += len(data) + (1 if flags & (SYN | FIN) else 0)

    def receive(self) -> Segment:
        packet = self.cable.packet()
        assert packet.protocol == frames.TCP
        return parse_tcp(packet.payload)

    def data(self, size: int) -> bytes:
        """So many bytes in order, each segment acknowledged."""
        found = b""
        while len(found) < size:
            segment = self.receive()
            if segment.payload and segment.seq == self.expected:
                found += bytes(segment.payload)
                self.expected += len(segment.payload)
                self.send(ACK)
        return found

    def connect(self) -> None:
        self.send(SYN)
        answer = self.receive()
        assert answer.flags == SYN | ACK
        assert answer.ack == self.next
        self.expected = answer.seq + 1
        self.send(ACK)


@contextmanager
def cable(**policy: list[str]) -> Iterator[Cable]:
    network = Network(NetworkPlan(mac=MAC.hex(":"), policy=Policy.of(**policy), servers=("127.0.0.1",)))
    try:
        network.start()
        yield Cable(network)
    finally:
        network.close()


@contextmanager
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        yield listening


@contextmanager
def connected() -> Iterator[tuple[Peer, socket.socket]]:
    """A connection of the guest to a server on the host's loopback, which the policy allows."""
    with server() as listening:
        port = listening.getsockname()[1]
        with cable(allow_net=[f"127.0.0.1:{port}"]) as line:
            peer = Peer(line, port)
            peer.connect()
            sock, _ = listening.accept()
            sock.settimeout(5)
            with sock:
                yield peer, sock


def test_both_ends_close_one_after_the_other() -> None:
    with connected() as (peer, sock):
        peer.send(ACK, b"to the host")
        assert sock.recv(100) == b"to the host"
        assert peer.receive().ack == peer.next
        peer.send(FIN | ACK)
        assert sock.recv(100) == b""
        assert peer.receive().ack == peer.next
        sock.sendall(b"to the guest")
        assert peer.data(12) == b"to the guest"
        sock.close()
        last = peer.receive()
        assert last.flags & FIN
        peer.expected += 1
        peer.send(ACK)
        # Nothing is known of it any more.
        peer.send(ACK)
        assert peer.receive().flags & RST


def test_what_is_not_acknowledged_is_sent_again() -> None:
    with connected() as (peer, sock):
        sock.sendall(b"once")
        first, again = peer.receive(), peer.receive()
        assert (first.seq, bytes(first.payload)) == (again.seq, b"once")
        assert bytes(again.payload) == b"once"
        peer.expected = again.seq + 2
        peer.send(ACK)
        half = peer.receive()
        assert (half.seq, bytes(half.payload)) == (first.seq + 2, b"ce")


def test_a_closed_window_holds_everything_back_until_it_opens() -> None:
    with connected() as (peer, sock):
        peer.send(ACK, window=0)
        sock.sendall(b"waits")
        assert peer.cable.silent()
        peer.send(ACK, window=3)
        assert bytes(peer.receive().payload) == b"wai"
        peer.expected += 3
        peer.send(ACK)
        assert bytes(peer.receive().payload) == b"ts"


def test_what_is_out_of_order_or_double_does_no_harm() -> None:
    with connected() as (peer, sock):
        peer.send(ACK, b"second", seq=peer.next + 5)
        assert peer.receive().ack == peer.next
        start = peer.next
        peer.send(ACK, b"first")
        peer.send(ACK, b"first", seq=start)
        peer.send(ACK, b"st+more", seq=start + 3)
        got = b""
        while len(got) < 10:
            got += sock.recv(100)
        assert got == b"first+more"


def test_a_reader_that_is_slow_on_the_host_stops_the_guest() -> None:
    with connected() as (peer, sock):
        sent = 0
        # Far more than window and socket hold.
        for _ in range(2000):
            peer.send(ACK, bytes(16384))
            sent += 16384
            while (answer := peer.receive()).ack != peer.next:
                if answer.window == 0:
                    break
            if answer.window < 16384:
                break
        assert answer.window < 16384
        held = sent - (peer.next - answer.ack)
        got = 0
        while got < held:
            got += len(sock.recv(1 << 20))
        assert got == held


def test_a_segment_of_no_connection_is_answered_by_a_reset() -> None:
    with cable() as line:
        peer = Peer(line, 80)
        peer.expected = 77
        peer.send(ACK, b"from before the restore")
        answer = peer.receive()
        assert (answer.flags, answer.seq) == (RST, 77)
        peer.send(RST)
        assert line.silent()


def test_a_restored_guest_that_only_waits_is_asked_and_reset() -> None:
    with connected() as (peer, _):
        (known,) = peer.cable.network.connections
    assert (known.port, known.guest_port, known.seq) == (peer.port, peer.guest_port, peer.expected)
    with cable() as line:
        line.network.break_off([known])
        peer.cable = line
        asked = peer.receive()
        # As old as that, it is out of any window.
        assert (asked.flags, asked.seq, bytes(asked.payload)) == (ACK, peer.expected - 1, b"")
        peer.send(ACK)
        answer = peer.receive()
        assert (answer.flags, answer.seq) == (RST, peer.expected)


def test_a_refusal_is_an_error_that_names_the_packet() -> None:
    with cable() as line:
        peer = Peer(line, 80, remote=bytes((10, 0, 0, 1)))
        peer.send(SYN)
        packet = line.packet()
        assert (packet.protocol, packet.payload[0], packet.payload[1]) == (frames.ICMP, 3, 13)
        quoted = parse_ip(packet.payload[8:])
        assert quoted.destination == peer.remote
        assert struct.unpack_from("!HHI", quoted.payload) == (4000, 80, 1000)
        assert line.network.refused == 1


def test_a_host_that_refuses_a_connection() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
    with cable(allow_net=[f"127.0.0.1:{port}"]) as line:
        peer = Peer(line, port)
        peer.send(SYN)
        assert peer.receive().flags == RST | ACK


def test_a_new_policy_resets_what_it_does_not_allow() -> None:
    with connected() as (peer, sock):
        peer.cable.network.set_policy(Policy())
        assert peer.receive().flags & RST
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_a_published_port_calls_the_guest_which_may_answer_twice() -> None:
    with cable() as line:
        line.network.publish(bind("127.0.0.1", 0, 80, "tcp"))
        with socket.create_connection(("127.0.0.1", line.network.ports[0].host_port), 5) as sock:
            packet = line.packet()
            call = parse_tcp(packet.payload)
            assert (packet.source, call.port, call.flags) == (GATEWAY, 80, SYN)
            peer = Peer(line, call.source_port, 80)
            peer.expected = call.seq + 1
            for _ in range(2):
                peer.send(SYN | ACK, seq=5000)
            peer.next = 5001
            peer.send(ACK, b"hello")
            assert sock.recv(100) == b"hello"


def test_more_calls_than_there_is_room_for_are_reset_and_the_others_go_on() -> None:
    most, more = 4096, 200
    with connected() as (first, sock):
        line, reset = first.cable, 0
        for number in range(1, most + more):
            Peer(line, first.port, 5000 + number).send(SYN)
            # Whatever has come is taken, so that the cable never fills up.
            while not line.silent(0.0001):
                reset += bool(parse_tcp(line.packet().payload).flags & RST)
        while reset < more:
            reset += bool(parse_tcp(line.packet().payload).flags & RST)
        assert reset == more
        first.send(ACK, b"goes on")
        assert sock.recv(100) == b"goes on"


def test_neighbours_are_answered_for_the_gateway_alone() -> None:
    arp = struct.Struct("!HHBBH6s4s6s4s")
    with cable() as line:
        line.send(frames.ARP, arp.pack(1, 0x800, 6, 4, 1, MAC, GUEST, bytes(6), GATEWAY))
        kind, answer = line.receive()
        assert kind == frames.ARP
        assert arp.unpack_from(answer)[4:7] == (2, GATEWAY_MAC, GATEWAY)
        for asked in (bytes((192, 0, 0, 3)), bytes((10, 0, 0, 1))):
            line.send(frames.ARP, arp.pack(1, 0x800, 6, 4, 1, MAC, GUEST, bytes(6), asked))
        body = struct.pack("!BBHI", 135, 0, 0, 0) + GATEWAY6 + b"\1\1" + MAC
        line.send(frames.IPV6, frames.ip_header(GUEST6, GATEWAY6, frames.ICMP6, len(body)) + body)
        advert = line.packet()
        assert (advert.payload[0], bytes(advert.payload[8:24])) == (136, GATEWAY6)
        covered = frames.pseudo(advert.source, advert.destination, frames.ICMP6, len(advert.payload))
        assert frames.checksum(covered, advert.payload) in (0, 0xFFFF)


def test_names_under_a_policy() -> None:
    with cable(allow_domain=["a.example"]) as line:
        question = struct.pack("!HHHHHH", 9, 0x100, 1, 0, 0, 0) + b"\1b\7example\0" + struct.pack("!HH", 1, 1)
        for server_ in (GATEWAY, bytes((8, 8, 8, 8))):
            line.send(frames.IPV4, b"".join(frames.udp_packet(GUEST, 4000, server_, 53, question)) + question)
            packet = line.packet()
            assert packet.source == server_
            assert frames.parse_udp(packet.payload).payload[3] & 15 == 5


def test_other_threads_that_are_busy_do_not_stop_it() -> None:
    done = threading.Event()

    def busy() -> None:
        number = 0
        while not done.is_set():
            number += 1

    with connected() as (peer, sock):
        thread = threading.Thread(target=busy, daemon=True)
        thread.start()
        try:
            began = time.monotonic()
            for _ in range(10):
                sock.sendall(b"x")
                assert peer.data(1) == b"x"
            assert time.monotonic() - began < 5
        finally:
            done.set()
            thread.join()


ODD = st.one_of(
    st.binary(max_size=120),
    st.builds(
        lambda proto, body: frames.ip_header(GUEST, GATEWAY, proto, len(body)) + body,
        st.sampled_from((1, 6, 17)),
        st.binary(max_size=80),
    ),
    st.builds(
        lambda proto, body: frames.ip_header(GUEST6, GATEWAY6, proto, len(body)) + body,
        st.sampled_from((0, 6, 17, 44, 58)),
        st.binary(max_size=80),
    ),
)


@hypothesis_settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from((frames.IPV4, frames.IPV6, frames.ARP, 0x1234)), ODD), max_size=40))
def test_no_frames_end_it(odd: list[tuple[int, bytes]]) -> None:
    with cable(deny_net=["all"]) as line:
        for kind, payload in odd:
            line.send(kind, payload)
        body = struct.pack("!BBHHH", 8, 0, 0, 7, 99) + b"alive"
        line.send(frames.IPV4, frames.ip_header(GUEST, GATEWAY, frames.ICMP, len(body)) + body)
        while True:
            kind, payload = line.receive()
            if kind == frames.IPV4 and bytes(payload[20:]).endswith(b"alive") and payload[9] == frames.ICMP:
                break
        assert payload[20] == 0
