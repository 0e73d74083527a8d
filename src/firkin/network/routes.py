"""What the host's routes say of an address, asked at the time of use: addresses come and go."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from firkin.network.policy import Place

__all__ = ["Routes"]

# linux/rtnetlink.h, linux/netlink.h
_RTM_NEWROUTE: Final = 24
_RTM_GETROUTE: Final = 26
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA, _RTA_NH_ID = 1, 4, 5, 9, 18, 30
_RTM_F_FIB_MATCH: Final = 0x2000
_RTN_UNICAST, _RTN_LOCAL, _RTN_BROADCAST, _RTN_ANYCAST, _RTN_MULTICAST = 1, 2, 3, 4, 5
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_PLACES: Final[dict[int, Place]] = {
    _RTN_LOCAL: "host",
    _RTN_ANYCAST: "host",
    _RTN_BROADCAST: "broadcast",
    _RTN_MULTICAST: "broadcast",
}
_SOME_GLOBAL4: Final = bytes((1, 0, 0, 1))
_SOME_GLOBAL6: Final = bytes.fromhex("26000000000000000000000000000001")


class Routes:
    """Looks addresses up in the routing tables of the network namespace that it was made in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(1.0)
        self._number = 0

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()

    def place(self, address: bytes) -> Place:
        """Where `address` is: `""` for beyond the default route's link or any router."""
        found = self._look(address)
        if found is None:
            return "unreachable"
        kind, length, attributes = found
        if kind != _RTN_UNICAST:
            return _PLACES.get(kind, "unreachable")
        if not length or attributes.keys() & {_RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA, _RTA_NH_ID}:
            return ""
        link = int.from_bytes(attributes.get(_RTA_OIF, b""), sys.byteorder)
        return "" if _interface(link) in _default_interfaces(len(address)) else "neighbour"

    def has_ipv4(self) -> bool:
        """Whether there is a way to the IPv4 Internet."""
        return self.place(_SOME_GLOBAL4) == ""

    def has_ipv6(self) -> bool:
        """Whether there is a way to the global IPv6 Internet."""
        return self.place(_SOME_GLOBAL6) == ""

    def _look(self, address: bytes) -> tuple[int, int, dict[int, bytes]] | None:
        """The type of the route to `address`, its prefix's length and attributes; None where there is none."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        self._number += 1
        body = _ROUTE.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH)
        body += struct.pack("=HH", 4 + len(address), _RTA_DST) + address
        self._socket.send(_HEADER.pack(16 + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, self._number, 0) + body)
        while True:
            try:
                answer = self._socket.recv(1 << 16)
            except TimeoutError:
                return None
            length, kind, _, number, _ = _HEADER.unpack_from(answer)
            if number == self._number:
                break
        if kind != _RTM_NEWROUTE:
            return None
        _, prefix, _, _, _, _, _, route, _ = _ROUTE.unpack_from(answer, 16)
        return route, prefix, dict(_attributes(answer[28:length]))


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if size < 4:
            break
        found.append((kind & 0x3FFF, data[4:size]))
        data = data[(size + 3) & ~3 :]
    return found


def _interface(index: int) -> str:
    with suppress(OSError):
        return socket.if_indextoname(index)
    return ""


def _default_interfaces(address_length: int) -> set[str]:
    """The links of default routes (proc(5), net/route; Documentation/networking/ipv6.rst)."""
    four = address_length == 4
    path = Path("/proc/thread-self/net") / ("route" if four else "ipv6_route")
    with suppress(OSError):
        rows = [line.split() for line in path.read_text().splitlines()]
        if four:
            return {row[0] for row in rows[1:] if row[1] == "00000000" and row[7] == "00000000"}
        return {row[9] for row in rows if row[0] == "0" * 32 and row[1] == "00"} - {"lo"}
    return set()
