"""How names are resolved inside: `/etc/resolv.conf` and `/etc/hosts`, as requests to the agent."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Self

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types import Hostname

if TYPE_CHECKING:
    from firkin.vminitd._generated import agent_pb2

__all__ = ["DnsConfig", "HostsConfig", "HostsEntry", "configure_dns_request", "configure_hosts_request"]

_OPTION = re.compile(r"[A-Za-z0-9_-]+(?::[A-Za-z0-9_.-]+)?")


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """What `/etc/resolv.conf` says, resolv.conf(5). Name servers are addresses. Raises `InvalidInputError`."""

    nameservers: tuple[str, ...] = ()
    domain: str | None = None
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "nameservers", tuple(_address(server, "name server") for server in self.nameservers))
        for name in (*self.search, *([self.domain] if self.domain is not None else [])):
            if name != ".":
                Hostname(name.removesuffix("."))
        for option in self.options:
            if not _OPTION.fullmatch(option):
                raise InvalidInputError(f"{option!r} is not an option of resolv.conf", value=option, hint="as ndots:2")


@dataclass(frozen=True, slots=True)
class HostsEntry:
    """A line of `/etc/hosts`, hosts(5). Raises `InvalidInputError`."""

    ip: str
    hostnames: tuple[str, ...]
    comment: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ip", _address(self.ip, "address of a host"))
        if not self.hostnames:
            raise InvalidInputError(f"no name for the host {self.ip}", value=self)
        for name in self.hostnames:
            Hostname(name)
        _one_line(self.comment)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read Docker's `--add-host`: `NAME:ADDRESS` or `NAME=ADDRESS`, an IPv6 address with or without brackets.

        Raises `InvalidInputError`.
        """
        name, mark, address = text.partition("=") if "=" in text else text.partition(":")
        if not mark or not address:
            raise InvalidInputError(f"{text!r} is not a host", value=text, hint="write NAME:ADDRESS")
        return cls(address.removeprefix("[").removesuffix("]"), (name,))


@dataclass(frozen=True, slots=True)
class HostsConfig:
    """What `/etc/hosts` says beside the container's own lines."""

    entries: tuple[HostsEntry, ...] = ()
    comment: str | None = None

    def __post_init__(self) -> None:
        _one_line(self.comment)


def configure_dns_request(dns: DnsConfig, location: str) -> agent_pb2.ConfigureDns:
    """The agent's call that writes `etc/resolv.conf` below `location`."""
    from firkin.vminitd._generated import agent_pb2

    return agent_pb2.ConfigureDns(
        location=location,
        nameservers=dns.nameservers,
        domain=dns.domain,
        search_domains=dns.search,
        options=dns.options,
    )


def configure_hosts_request(hosts: HostsConfig, location: str) -> agent_pb2.ConfigureHosts:
    """The agent's call that writes `etc/hosts` below `location`."""
    from firkin.vminitd._generated import agent_pb2

    entries = [
        agent_pb2.HostsEntry(ip=entry.ip, hostnames=entry.hostnames, comment=entry.comment) for entry in hosts.entries
    ]
    return agent_pb2.ConfigureHosts(location=location, entries=entries, comment=hosts.comment)


def _address(text: str, what: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not the {what}", value=text, hint="write an IP address") from error


def _one_line(comment: str | None) -> None:
    if comment is not None and ("\n" in comment or "\0" in comment):
        raise InvalidInputError("a comment has a line break or a NUL", value=comment)
