"""Published ports, sockets, DNS and hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.core.name_service import (
    DnsConfig,
    HostsConfig,
    HostsEntry,
    configure_dns_request,
    configure_hosts_request,
)
from firkin.core.publication import PortPublication
from firkin.core.socket_relay import SocketRelay
from firkin.errors import InvalidInputError
from firkin.types import GuestPath

ROOT = "/run/container/worker/rootfs"


def test_dns_and_hosts_configs_build_vminitd_requests() -> None:
    dns = DnsConfig(("1.1.1.1", "::1"), "example.test", ("svc.local",), ("ndots:2",))
    hosts = HostsConfig((HostsEntry("127.0.0.1", ("localhost", "worker"), "local"),), "managed by firkin")
    dns_request = configure_dns_request(dns, ROOT)
    hosts_request = configure_hosts_request(hosts, ROOT)
    assert dns_request.location == ROOT
    assert list(dns_request.nameservers) == ["1.1.1.1", "::1"]
    assert dns_request.domain == "example.test"
    assert list(dns_request.search_domains) == ["svc.local"]
    assert list(dns_request.options) == ["ndots:2"]
    assert hosts_request.location == ROOT
    assert list(hosts_request.entries[0].hostnames) == ["localhost", "worker"]
    assert hosts_request.entries[0].comment == "local"
    assert hosts_request.comment == "managed by firkin"


def test_what_is_unset_stays_unset() -> None:
    assert not configure_dns_request(DnsConfig(), ROOT).HasField("domain")
    assert not configure_hosts_request(HostsConfig(), ROOT).HasField("comment")


@pytest.mark.parametrize(
    "make",
    [
        lambda: DnsConfig(("dns.example",)),
        lambda: DnsConfig(search=("a b",)),
        lambda: DnsConfig(domain=""),
        lambda: DnsConfig(options=("a\nnameserver 6.6.6.6",)),
        lambda: HostsEntry("nowhere", ("a",)),
        lambda: HostsEntry("1.2.3.4", ()),
        lambda: HostsEntry("1.2.3.4", ("a b",)),
        lambda: HostsEntry("1.2.3.4", ("a",), "x\n1.1.1.1 b"),
        lambda: HostsConfig((), "x\ny"),
        lambda: HostsEntry.parse("alone"),
    ],
)
def test_wrong_names(make: object) -> None:
    with pytest.raises(InvalidInputError):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("db:10.0.0.1", HostsEntry("10.0.0.1", ("db",))),
        ("db:::1", HostsEntry("::1", ("db",))),
        ("db=[::1]", HostsEntry("::1", ("db",))),
    ],
)
def test_hosts_are_read(text: str, entry: HostsEntry) -> None:
    assert HostsEntry.parse(text) == entry


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [(80, 0, "127.0.0.1", "tcp")]),
        ("8080:80", [(80, 8080, "127.0.0.1", "tcp")]),
        ("0:80", [(80, 0, "127.0.0.1", "tcp")]),
        ("0.0.0.0:8080:80/udp", [(80, 8080, "0.0.0.0", "udp")]),
        ("192.0.2.1::53/tcp", [(53, 0, "192.0.2.1", "tcp")]),
        ("[::1]:8080:80", [(80, 8080, "::1", "tcp")]),
        ("8000-8001:80-81", [(80, 8000, "127.0.0.1", "tcp"), (81, 8001, "127.0.0.1", "tcp")]),
        ("80-81", [(80, 0, "127.0.0.1", "tcp"), (81, 0, "127.0.0.1", "tcp")]),
    ],
)
def test_ports(text: str, ports: list[tuple[int, int, str, str]]) -> None:
    found = [(port.guest_port, port.host_port, port.host_ip, port.protocol) for port in PortPublication.parse(text)]
    assert found == ports


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0",
        "70000",
        "70000:80",
        "80:",
        "1:2:3",
        "1-2:3",
        "9-8",
        "80/sctp",
        "999.0.0.1:1:1",
        "[x]:1:1",
        "1.2.3.4.5:1:1",
        "127.0.0.180:",
    ],
)
def test_wrong_ports(text: str) -> None:
    with pytest.raises(InvalidInputError):
        PortPublication.parse(text)


def test_sockets() -> None:
    relay = SocketRelay.parse("/run/a.sock:/b.sock")
    assert relay == SocketRelay(Path("/run/a.sock"), GuestPath("/b.sock"), True)
    assert SocketRelay.parse("/b.sock:/run/a.sock", into_guest=False) == SocketRelay(
        Path("/run/a.sock"), GuestPath("/b.sock"), False
    )
    assert SocketRelay.parse("/h:/g:mode=660,uid=7,gid=8") == SocketRelay(
        Path("/h"), GuestPath("/g"), mode=0o660, uid=7, gid=8
    )
    for text in ("/a", ":/a", "/a:", "/a:b", "/a:/", "/a:/b:mode=888", "/a:/b:mode=1777", "/a:/b:x=1", "/a:/b:uid=-1"):
        with pytest.raises(InvalidInputError):
            SocketRelay.parse(text)
