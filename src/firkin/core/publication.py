"""Ports of the guest that are reachable on the host."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import asdict
from typing import Any, Literal, Self

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass

__all__ = ["PortPublication"]

_ADDRESS = r"(?:\[([0-9a-fA-F:.]+)\]|(\d{1,3}(?:\.\d{1,3}){3}))"
_PUBLICATION = re.compile(_ADDRESS + r"?:?(?:(\d{0,5}(?:-\d{1,5})?):)?(\d{1,5}(?:-\d{1,5})?)(?:/(tcp|udp))?")


@dataclass(frozen=True, slots=True)
class PortPublication:
    """A port of the guest reachable on the host; host port 0: a free one is picked. Raises `InvalidInputError`."""

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

    def as_document(self) -> dict[str, Any]:
        """As `firkin port --format json` prints it."""
        return asdict(self)

    @classmethod
    def parse(cls, text: str) -> tuple[Self, ...]:
        """Read Docker's `-p [ip:][host:]guest[/udp]`; ranges of the same length on both sides give several.

        Raises `InvalidInputError`.
        """
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
