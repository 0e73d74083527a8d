"""A container's network, as the user asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Literal

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.network.plan import LARGEST_MTU, LEAST_MTU
from firkin.network.policy import Policy

if TYPE_CHECKING:
    from firkin.core.name_service import DnsConfig, HostsEntry
    from firkin.core.publication import PortPublication
    from firkin.core.socket_relay import SocketRelay

__all__ = ["NetworkOptions"]

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class NetworkOptions:
    """`network` is `nat` or `none`. `dns` unset: the network's own. `hosts`: further lines of `/etc/hosts`.

    `policy`: what may be reached. `mtu` in bytes, unset: the largest.
    Raises `InvalidInputError`.
    """

    network: Literal["nat", "none"] = "nat"
    dns: DnsConfig | None = None
    hosts: tuple[HostsEntry, ...] = ()
    publish: tuple[PortPublication, ...] = ()
    mac_address: str | None = None
    mtu: int | None = None
    policy: Policy = field(default_factory=Policy)
    sockets: tuple[SocketRelay, ...] = ()

    def __post_init__(self) -> None:
        if self.network not in ("nat", "none"):
            raise InvalidInputError(f"{self.network!r} is not a network", value=self.network, hint="nat or none")
        if self.network == "none" and self.publish:
            raise InvalidInputError(
                "ports can't be published without a network", value=self.publish, hint="drop one of the two"
            )
        if self.network == "none" and self.policy != Policy():
            raise InvalidInputError("there is nothing to allow or deny without a network", value=self.policy)
        if self.mtu is not None and not LEAST_MTU <= self.mtu <= LARGEST_MTU:
            raise InvalidInputError(
                f"an MTU of {self.mtu} is out of range", value=self.mtu, hint=f"{LEAST_MTU} to {LARGEST_MTU}"
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
