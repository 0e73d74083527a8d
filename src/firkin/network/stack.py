"""The other end of the guest's cable: a router, resolver and translator that opens the host's sockets for the guest.

Nothing that the guest sends reaches a network as it is: a connection becomes a socket of this process, made after the
policy was asked. So there is no frame to be forged, no fragment to hide in and no neighbour to trick.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Final

from firkin.network import frames, neighbours
from firkin.network.dns import Resolver
from firkin.network.frames import ACK, RST, SYN, MalformedError, Packet
from firkin.network.pinholes import Pinholes
from firkin.network.plan import GATEWAY_MAC, INSIDE
from firkin.network.policy import Place, Policy, Protocol
from firkin.network.shield import block_of, embedded
from firkin.network.tcp import Connection, Flow, FlowKey
from firkin.network.udp import Datagrams

if TYPE_CHECKING:
    from firkin.network.loop import Handler, Loop
    from firkin.network.report import Refusals
    from firkin.network.routes import Routes
    from firkin.network.wire import Wire

__all__ = ["Stack"]

DNS: Final = 53
_MOST_FLOWS: Final = 4096
# What connections may hold together for the guest and for the host, each; and the most and least of one.
_BUDGET, _MOST_LIMIT, _LEAST_LIMIT = 64 << 20, 1 << 20, 16 << 10
_TICK: Final = 0.1
_NAMES: Final = {frames.TCP: "tcp", frames.UDP: "udp", frames.ICMP: "icmp", frames.ICMP6: "icmp"}


class Stack:
    """Frames of the guest in, frames to the guest out; one thread's."""

    def __init__(
        self,
        wire: Wire,
        loop: Loop,
        routes: Routes,
        refusals: Refusals,
        policy: Policy,
        *,
        mac: bytes,
        servers: tuple[str, ...] = (),
    ) -> None:
        self._wire = wire
        self._loop = loop
        self._routes = routes
        self.refusals = refusals
        self.policy = policy
        self.pinholes = Pinholes()
        self.resolver = Resolver(self, servers)
        self.has_ipv6 = routes.has_ipv6()
        self.mac = mac
        self._headers = {
            4: frames.ethernet(mac, GATEWAY_MAC, frames.IPV4),
            6: frames.ethernet(mac, GATEWAY_MAC, frames.IPV6),
        }
        self._flows: dict[FlowKey, Flow] = {}
        self._acks: dict[Flow, None] = {}
        self._stalled: dict[Flow, None] = {}
        self._datagrams = Datagrams(self)
        self.echo = neighbours.Echo(self)
        self._ticked = self._second = 0.0
        self._periodic: list[Callable[[], None]] = []
        self._wire_mask = 0

    # ---- what the parts use

    @property
    def now(self) -> float:
        """The loop's clock, in seconds."""
        return self._loop.now

    @property
    def answers(self) -> dict[tuple[int, int], Callable[[bytes], None]]:
        """What takes the guest's answers to clients of published UDP ports, by the gateway's port and the guest's."""
        return self._datagrams.published

    @property
    def flow_limit(self) -> int:
        """How many bytes one connection may hold in each direction."""
        return min(_MOST_LIMIT, max(_LEAST_LIMIT, _BUDGET // (len(self._flows) + 1)))

    def watch(self, sock: socket.socket, mask: int, handler: Handler) -> None:
        """Call `handler` when `sock` is ready for `mask` (epoll(7))."""
        self._loop.watch(sock, mask, handler)

    def unwatch(self, sock: socket.socket) -> None:
        """The reverse of `watch`."""
        self._loop.unwatch(sock)

    def blocked(self, flow: Flow) -> bool:
        """Whether the guest is behind; then `flow` is resumed once it is not."""
        if self._wire.full:
            self._stalled[flow] = None
            return True
        return False

    def owe_ack(self, flow: Flow) -> None:
        """An acknowledgement is due by the end of this turn."""
        self._acks[flow] = None

    def forget(self, flow: Flow) -> None:
        """The flow has ended."""
        if self._flows.get(flow.key) is flow:
            del self._flows[flow.key]
        self._acks.pop(flow, None)
        self._stalled.pop(flow, None)

    def refuse(self, reason: str, protocol: str, **details: object) -> None:
        """Report a refusal, with `details`."""
        self.refusals.add(self.now, reason, protocol, **details)

    def open_pinhole(self, address: bytes, name: str, ttl: int) -> bool:
        """Let the guest reach `address` for `ttl` seconds; False for one that no name may open."""
        if block_of(address) or self._refusal(address, 0, "tcp", self._routes.place(address), True):
            return False
        self.pinholes.open(address, name, self.now + ttl)
        return True

    def target(self, address: bytes, port: int, protocol: Protocol, *, named: bool = False) -> bytes | None:
        """Where a connection to `address` goes on the host; None, reported, where the policy refuses it.

        `named`: it was allowed by a name that still is.
        """
        side = INSIDE[4 if len(address) == 4 else 6]
        place: Place
        if address == side.gateway:
            target, place = side.loopback, "host"
        else:
            target, place = address, self._routes.place(address)
        pinned = named or (address, self.now) in self.pinholes
        why = self._refusal(target, port, protocol, place, pinned)
        # The host's loopback has no other name inside than the gateway's.
        if why is None and place == "host" and target is address and (found := block_of(address)):
            why = found[1] if found[1] == "loopback" else None
        if why is None:
            return target
        text = socket.inet_ntop(side.family, address)
        name = self.pinholes.name(address)
        self.refuse(why, protocol, destination=text, port=port, **({"name": name} if name else {}))
        return None

    def _refusal(self, address: bytes, port: int, protocol: Protocol, place: Place, pinned: bool) -> str | None:
        """As the policy's, and for an IPv4 address that is in an IPv6 one by its own place too."""
        inner = embedded(address)
        if inner is not None and (there := self._routes.place(inner)) not in ("", "unreachable"):
            return self.policy.refusal(inner, port, protocol, there, pinned=pinned)
        return self.policy.refusal(address, port, protocol, place, pinned=pinned)

    # ---- frames in

    def frame(self, frame: memoryview) -> None:
        """Take one frame of the guest."""
        if len(frame) < 14:
            return
        if frame[6:12] != self.mac:
            # Before it has its own address a clone still has the one that it was saved with; that is no news.
            self.refusals.total += 1
            return
        kind = int.from_bytes(frame[12:14], "big")
        try:
            if kind in (frames.IPV4, frames.IPV6):
                self._packet(frames.parse_ip(frame[14:]))
            elif kind == frames.ARP:
                neighbours.arp(self, frame[14:])
            elif kind > 1500 and kind != frames.RARP:
                self.refuse("ethertype", "ethernet", type=f"{kind:#06x}")
        except MalformedError as error:
            if frame[0] & 1 and kind == frames.IPV6:
                return  # multicast, of which the kernel sends some by itself
            self.refuse(str(error), {frames.IPV4: "ip", frames.IPV6: "ipv6", frames.ARP: "arp"}[kind])

    def _packet(self, packet: Packet) -> None:
        side = INSIDE[packet.version]
        if packet.protocol == frames.ICMP6 and packet.version == 6 and neighbours.icmp6(self, packet):
            return
        if packet.destination[0] >= 224 and (packet.version == 4 or packet.destination[0] == 0xFF):
            return  # multicast and broadcast: the kernel's own talk, of no use here
        if packet.source != side.guest:
            if not neighbours.is_quiet(packet):
                text = socket.inet_ntop(side.family, packet.source)
                self.refuse("source", _NAMES.get(packet.protocol, str(packet.protocol)), source=text)
            return
        if packet.protocol == frames.TCP:
            self._tcp(packet)
        elif packet.protocol == frames.UDP:
            self._udp(packet)
        elif packet.protocol == (frames.ICMP if packet.version == 4 else frames.ICMP6):
            self.echo.request(packet)
        else:
            self.refuse("protocol", str(packet.protocol), destination=socket.inet_ntop(side.family, packet.destination))

    def _udp(self, packet: Packet) -> None:
        datagram = frames.parse_udp(packet.payload)
        if datagram.port == DNS:
            back = (packet.destination, DNS, datagram.source_port)
            self.resolver.ask(bytes(datagram.payload), stream=False, reply=lambda text: self.send_udp(*back, text))
        else:
            self._datagrams.send(packet, datagram)

    def _tcp(self, packet: Packet) -> None:
        segment = frames.parse_tcp(packet.payload)
        key = FlowKey(packet.destination, segment.port, segment.source_port)
        flow = self._flows.get(key)
        if flow is not None:
            if flow.segment(segment):
                return
            flow.close(reset=True)
        if segment.flags & (SYN | ACK | RST) == SYN:
            self._call(key, segment)
        elif not segment.flags & RST:
            # Of a connection from before a restore, or one that was cut.
            ack = (segment.seq + len(segment.payload) + (1 if segment.flags & (SYN | frames.FIN) else 0)) & 0xFFFFFFFF
            self.send_tcp(key, segment.ack, ack, RST if segment.flags & ACK else RST | ACK, 0)

    def _call(self, key: FlowKey, syn: frames.Segment) -> None:
        if len(self._flows) >= _MOST_FLOWS:
            self.refuse("too-many", "tcp", port=key.port)
            self.send_tcp(key, 0, syn.seq + 1, RST | ACK, 0)
            return
        if key.port == DNS:
            self._flows[key] = Flow.outward(self, key, self._resolver_socket(), syn)
            return
        target = self.target(key.remote, key.port, "tcp")
        if target is None:
            self.prohibited(key, "tcp", syn.seq)
            return
        family = socket.AF_INET if len(target) == 4 else socket.AF_INET6
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            self.refuse("too-many", "tcp", port=key.port, detail=str(error))
            self.send_tcp(key, 0, syn.seq + 1, RST | ACK, 0)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        error_number = sock.connect_ex((socket.inet_ntop(family, target), key.port))
        if error_number in (0, errno.EINPROGRESS):
            flow = self._flows[key] = Flow.outward(self, key, sock, syn)
            flow.name = self.pinholes.name(key.remote)
            return
        sock.close()
        self.unreachable(key, "tcp", syn.seq)

    def _resolver_socket(self) -> socket.socket:
        """A connection to the resolver, as a flow needs it."""
        from firkin.network.dns_stream import DnsStream

        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (theirs, ours):
            end.setblocking(False)
        DnsStream(self, ours)
        return theirs

    def call_guest(self, sock: socket.socket, guest_port: int) -> bool:
        """Join `sock`, which is connected, to a port of the guest; False where there is no room for it."""
        gateway = INSIDE[4].gateway
        if len(self._flows) >= _MOST_FLOWS:
            return False
        for _ in range(64):
            key = FlowKey(gateway, int.from_bytes(os.urandom(2), "big") | 0x8000, guest_port)
            if key not in self._flows:
                self._flows[key] = Flow.inward(self, key, sock)
                return True
        return False

    # ---- frames out

    def send_packet(self, version: int, *parts: bytes | memoryview) -> None:
        """An IP packet to the guest, in parts."""
        self._wire.send(self._headers[version] + parts[0], *parts[1:])

    def send_frame(self, kind: int, payload: bytes) -> None:
        """Send an Ethernet frame of EtherType `kind` to the guest."""
        self._wire.send(frames.ethernet(self.mac, GATEWAY_MAC, kind) + payload)

    def send_tcp(
        self,
        key: FlowKey,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        options: bytes = b"",
        payload: bytes | memoryview = b"",
    ) -> None:
        """Send a TCP segment to the guest."""
        version = 4 if len(key.remote) == 4 else 6
        guest = INSIDE[version].guest
        header = frames.tcp_header(
            key.remote, key.port, guest, key.guest_port, seq, ack, flags, window, options, payload
        )
        ip = frames.ip_header(key.remote, guest, frames.TCP, len(header) + len(payload))
        self.send_packet(version, ip + header, payload)

    def send_udp(self, remote: bytes, port: int, guest_port: int, payload: bytes) -> None:
        """Send a UDP packet to the guest; dropped where the wire is full."""
        version = 4 if len(remote) == 4 else 6
        if self._wire.full:
            return
        headers = frames.udp_packet(remote, port, INSIDE[version].guest, guest_port, payload)
        self.send_packet(version, b"".join(headers), payload)

    def unreachable(self, key: FlowKey, protocol: Protocol, seq: int = 0) -> None:
        """Tell the guest that the host has no way there; `seq` is the number of its SYN."""
        neighbours.unreachable(self, key, protocol, seq=seq, prohibited=False)

    def prohibited(self, key: FlowKey, protocol: Protocol, seq: int = 0) -> None:
        """Tell the guest that it may not go there."""
        neighbours.unreachable(self, key, protocol, seq=seq, prohibited=True)

    # ---- time and change

    @property
    def connections(self) -> list[Connection]:
        """Those that a guest saved now will believe it has."""
        return [found for flow in self._flows.values() if (found := flow.connection)]

    def break_off(self, connections: Iterable[Connection]) -> None:
        """Have a restored guest find out that these are gone, also where it only waits for data.

        It answers a segment of long ago with where it stands (RFC 9293, 3.10.7.4), and that answer, of no connection
        here, is answered by the reset that it takes.
        """
        for each in connections:
            key = FlowKey(_packed(each.remote), each.port, each.guest_port)
            if key not in self._flows:
                self.send_tcp(key, (each.seq - 1) & 0xFFFFFFFF, 0, ACK, 0)

    def settle(self) -> float | None:
        """Send what is due; the longest time until the next call, None where nothing waits. Raises `WireError`."""
        for flow in tuple(self._acks):
            flow.acknowledge()
        self._acks.clear()
        drained = self._wire.flush()
        if self._stalled and not self._wire.full:
            stalled, self._stalled = tuple(self._stalled), {}
            for flow in stalled:
                flow.resume()
        mask = EPOLLIN if drained else EPOLLIN | EPOLLOUT
        if mask != self._wire_mask:
            self._wire_mask = mask
            self._loop.watch(self._wire.sock, mask, self._on_wire)
        if self.now - self._ticked >= _TICK:
            self._tick(drained)
        busy = self.resolver.busy or any(flow.deadline for flow in self._flows.values())
        return _TICK if busy else 1.0 if self._datagrams.any or self._stalled or self._periodic else None

    def _on_wire(self, events: int) -> None:
        if events & ~EPOLLOUT:
            self._wire.receive(self.frame)

    def _tick(self, drained: bool) -> None:
        self._ticked = self.now
        self.resolver.expire()
        self._datagrams.expire()
        self.echo.expire()
        if self.now - self._second >= 1.0:
            self._second = self.now
            for work in self._periodic:
                work()
        if not drained:
            return  # the guest takes nothing: it stands still, or is busy; nothing is lost by waiting
        for flow in tuple(self._flows.values()):
            if flow.deadline and flow.deadline <= self.now:
                flow.expire()

    def every_second(self, work: Callable[[], None]) -> None:
        """Call `work` about once a second, for as long as anything goes on."""
        self._periodic.append(work)

    def no_more(self, work: Callable[[], None]) -> None:
        """Undo `every_second`."""
        self._periodic.remove(work)

    def set_policy(self, policy: Policy) -> None:
        """Judge by `policy` from now on, and cut what it does not allow."""
        self.policy = policy
        self.pinholes.keep(policy)
        for flow in tuple(self._flows.values()):
            if flow.published or flow.key.port == DNS:
                continue
            named = bool(flow.name) and policy.allows_name(flow.name)
            if self.target(flow.key.remote, flow.key.port, "tcp", named=named) is None:
                flow.reset()
        self._datagrams.judge()

    def close(self) -> None:
        """Let go of everything; the guest learns nothing."""
        for flow in tuple(self._flows.values()):
            flow.close(reset=True)
        self._datagrams.close()
        self.resolver.close()
        self.echo.close()
        self.refusals.close()


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
