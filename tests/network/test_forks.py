"""Forks of one saved VM: each has an address of its own on a cable of its own, and all work at once."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

import firkin
from firkin.oci import Image

pytestmark = pytest.mark.vm

SHOW = "cat /sys/class/net/eth0/address; ip -4 addr show eth0; ip -6 addr show eth0; ip route; ping -c 1 192.0.0.1"


def _show(_: int) -> str:
    return str(firkin.run("busybox", ["sh", "-c", SHOW], text=True, check=True).stdout)


def test_forks_have_addresses_of_their_own(busybox_image: Image) -> None:
    with ThreadPoolExecutor(4) as pool:
        shown = list(pool.map(_show, range(4)))
    assert len({text.splitlines()[0] for text in shown}) == 4
    for text in shown:
        assert re.match(r"02(:[0-9a-f]{2}){5}\n", text)
        assert "192.0.0.2/29" in text
        assert "fd66:726b::2/64" in text
        assert "default via 192.0.0.1 dev eth0" in text
        assert "1 packets received" in text


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "booted"])
def test_an_address_and_an_mtu_that_were_asked_for(busybox_image: Image, fork: bool) -> None:
    result = firkin.run(
        "busybox", ["ip", "link", "show", "eth0"], mac_address="02:11:22:33:44:55", mtu=1400, fork=fork, text=True
    )
    assert "mtu 1400" in str(result.stdout)
    assert "02:11:22:33:44:55" in str(result.stdout)
