"""A container's network, as the user asks for it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from firkin.errors import InvalidInputError
from firkin.types import GuestPath

if TYPE_CHECKING:
    from firkin.core.name_service import DnsConfig, HostsEntry

__all__ = ["NetworkOptions", "PortPublication", "SocketRelay"]

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_PUBLICATION = re.compile(
    r"(?:(?:\[([0-9a-fA-F:.]+)\]|(\d{1,3}(?:\.\d{1,3}){3})):)?(?:(\d{0,5}(?:-\d{1,5})?):)?(\d{1,5}(?:-\d{1,5})?)(?:/(tcp|udp))?"
)


@dataclass(frozen=True, slots=True)
class PortPublication:
    """A port of the guest reachable on the host; host port 0: a free one is picked."""

    guest_port: int
    host_port: int = 0
    host_ip: str = "127.0.0.1"
    protocol: Literal["tcp", "udp"] = "tcp"

    def __post_init__(self) -> None:
        if not 1 <= self.guest_port <= 0xFFFF:
            raise InvalidInputError(
                f"the guest port {self.guest_port} is out of range", value=self.guest_port, hint="1 to 65535"
            )
        if not 0 <= self.host_port <= 0xFFFF:
            raise InvalidInputError(
                f"the host port {self.host_port} is out of range", value=self.host_port, hint="0 to 65535"
            )
        try:
            ipaddress.ip_address(self.host_ip)
        except ValueError as error:
            raise InvalidInputError(f"{self.host_ip!r} is not an address of the host", value=self.host_ip) from error

    @classmethod
    def parse(cls, text: str) -> tuple[Self, ...]:
        """Read Docker's `-p [ip:][host:]guest[/udp]`; ranges of the same length on both sides give several."""
        match = _PUBLICATION.fullmatch(text)
        if match is None:
            raise InvalidInputError(
                f"{text!r} is not a published port", value=text, hint="write [IP:][HOST:]GUEST[/udp]"
            )
        six, four, host, guest, protocol = match.groups()
        guests = _ports(guest)
        hosts = _ports(host) if host else [0] * len(guests)
        if len(hosts) != len(guests):
            raise InvalidInputError(f"the port ranges of {text!r} differ in length", value=text)
        kind: Literal["tcp", "udp"] = "udp" if protocol == "udp" else "tcp"
        return tuple(
            cls(inner, outer, six or four or "127.0.0.1", kind) for inner, outer in zip(guests, hosts, strict=True)
        )


def _ports(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    low, high = int(first), int(last) if dash else int(first)
    if high < low or high > 0xFFFF:
        raise InvalidInputError(f"{text!r} is not a range of ports", value=text, hint="FIRST-LAST, up to 65535")
    return list(range(low, high + 1))


@dataclass(frozen=True, slots=True)
class SocketRelay:
    """A Unix socket relayed between host and guest: `into_guest`, the host's is there for the guest; else the other way
    round.
    """

    host: Path
    guest: GuestPath
    into_guest: bool = True
    mode: int = 0o600

    @classmethod
    def parse(cls, text: str, *, into_guest: bool = True) -> Self:
        """Read `HOST:GUEST` where `into_guest`, else `GUEST:HOST`."""
        first, colon, second = text.partition(":")
        if not colon or not first or not second:
            raise InvalidInputError(
                f"{text!r} is not a pair of sockets", value=text, hint="write two paths with : between"
            )
        host, guest = (first, second) if into_guest else (second, first)
        return cls(Path(host).absolute(), GuestPath.destination(guest), into_guest)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """`network` is `nat` or `none`. `dns` unset: the network's own. `hosts`: further lines of `/etc/hosts`."""

    network: Literal["nat", "none"] = "nat"
    dns: DnsConfig | None = None
    hosts: tuple[HostsEntry, ...] = ()
    publish: tuple[PortPublication, ...] = ()
    mac_address: str | None = None
    sockets: tuple[SocketRelay, ...] = ()

    def __post_init__(self) -> None:
        if self.network not in ("nat", "none"):
            raise InvalidInputError(f"{self.network!r} is not a network", value=self.network, hint="nat or none")
        if self.network == "none" and self.publish:
            raise InvalidInputError(
                "ports can't be published without a network", value=self.publish, hint="drop one of the two"
            )
        if self.mac_address is not None:
            _check_mac(self.mac_address)
        _distinct(self.publish)


def _check_mac(text: str) -> None:
    if not _MAC.fullmatch(text.lower()) or int(text[:2], 16) & 1:
        raise InvalidInputError(f"{text!r} is not the address of one station", value=text, hint="as 02:00:00:00:00:01")


def _distinct(publications: Iterable[PortPublication]) -> None:
    taken: set[tuple[str, int, str]] = set()
    for publication in publications:
        key = (publication.host_ip, publication.host_port, publication.protocol)
        if publication.host_port and key in taken:
            raise InvalidInputError(f"the host's port {publication.host_port} is published twice", value=publication)
        taken.add(key)
