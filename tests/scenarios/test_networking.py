"""Scenarios: a container with and without a network."""

from __future__ import annotations

import pytest

import firkin
from firkin.core.name_service import HostsEntry
from firkin.oci import Image

pytestmark = pytest.mark.vm
scenario = pytest.mark.scenario


@scenario("container networking disabled")
def test_disabled(busybox_image: Image) -> None:
    # ping says on its output whom it tries, before it fails.
    script = "ls /sys/class/net; ip route; ping -c 1 -W 1 192.0.0.1 >/dev/null; echo $?; cat /etc/hosts"
    shown = firkin.run("busybox", ["sh", "-c", script], network="none", text=True)
    assert str(shown.stdout).startswith("lo\n1\n127.0.0.1")
    assert str(shown.stderr) == "ping: sendto: Network is unreachable\n"


@scenario("container hosts")
def test_hosts(busybox_image: Image) -> None:
    """The container's own lines and those it was given; its programs find the names."""
    given = [HostsEntry("192.0.2.7", ("there", "there.example"), "given"), "six:2001:db8::7"]
    script = "cat /etc/hosts; ping -c 1 -W 1 there.example | head -n 1; ping -c 1 -W 1 six | head -n 1"
    done = firkin.run("busybox", ["sh", "-c", script], hosts=given, hostname="own", network="none", text=True)
    lines = [line.split() for line in str(done.stdout).splitlines()]
    assert {("127.0.0.1", "localhost"), ("127.0.1.1", "own"), ("2001:db8::7", "six")} <= {tuple(line) for line in lines}
    assert ["192.0.2.7", "there", "there.example", "#", "given"] in lines
    assert [line[:3] for line in lines if line[:1] == ["PING"]] == [
        ["PING", "there.example", "(192.0.2.7):"],
        ["PING", "six", "(2001:db8::7):"],
    ]


@scenario("container networking enabled")
def test_enabled(plain: firkin.Container) -> None:
    script = "ls /sys/class/net; ip route; cat /etc/resolv.conf; ping -c 1 192.0.0.1; ping -c 1 fd66:726b::1"
    shown = str(plain.run(["sh", "-c", script], text=True, check=True).stdout)
    assert shown.startswith("eth0\nlo\n")
    assert "default via 192.0.0.1 dev eth0" in shown
    assert "nameserver 192.0.0.1" in shown
    assert shown.count("1 packets received") == 2
