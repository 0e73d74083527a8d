"""Scenarios: a container with and without a network."""

from __future__ import annotations

import pytest

import firkin
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


@scenario("container networking enabled")
def test_enabled(plain: firkin.Container) -> None:
    script = "ls /sys/class/net; ip route; cat /etc/resolv.conf; ping -c 1 192.0.0.1; ping -c 1 fd66:726b::1"
    shown = str(plain.run(["sh", "-c", script], text=True, check=True).stdout)
    assert shown.startswith("eth0\nlo\n")
    assert "default via 192.0.0.1 dev eth0" in shown
    assert "nameserver 192.0.0.1" in shown
    assert shown.count("1 packets received") == 2
