"""What a guest reaches, and what it does not, whatever it tries: real servers around a host of the test's own."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from firkin.network import frames
from firkin.network.plan import INSIDE
from tests.network.guest import Guest, guest
from tests.network.world import HOST4, HOST6, World

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

GATEWAY, GATEWAY6 = INSIDE[4].gateway_text, INSIDE[6].gateway_text
# Each is served outside or by the host itself, which the host's side can see.
UNREACHABLE = {
    "the host's loopback, as the gateway": GATEWAY,
    "the host's loopback, as the gateway, IPv6": GATEWAY6,
    "the host": HOST4,
    "the host, IPv6": HOST6,
    "the host's bridge": "10.88.0.1",
    "another container": "10.88.0.5",
    "a public address on a second bridge": "45.45.45.5",
    "a public address on a second bridge, IPv6": "2600:77::5",
    "the host's public address on a bridge": "45.45.45.1",
    "metadata": "169.254.169.254",
    "metadata, IPv6": "fd00:ec2::254",
    "private 10": "10.1.2.3",
    "private 172": "172.16.0.9",
    "private 192": "192.168.1.10",
    "carrier's": "100.64.0.9",
    "benchmarks": "198.18.0.9",
    "documentation": "192.0.2.9",
    "site-local": "fec0::9",
    "translated private (NAT64)": "64:ff9b::a01:203",
    "6to4 of a private address": "2002:a01:203::1",
    "Teredo": "2001:0:102:304::1",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(world: World) -> AsyncIterator[Guest]:
    async with guest(privileged=True) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def cut(box: Guest) -> AsyncIterator[None]:
    """What a test has left open ends with it."""
    yield
    await box.container.set_network_policy(deny_net=["all"])
    await box.container.set_network_policy()


async def test_tcp_udp_and_names_work_without_a_flag(box: Guest, world: World) -> None:
    world.names(www_example=[("www.example", "A", 60, "1.2.3.4"), ("www.example", "AAAA", 60, "2600:9::1")])
    assert "outside ::ffff:1.2.3.4" in await box.tcp("1.2.3.4")
    assert "outside 2600:9::1" in await box.tcp("2600:9::1")
    assert await box.udp("1.2.3.4") == "hello"
    assert await box.udp("2600:9::1") == "hello"
    assert await box.name("www.example") == ["1.2.3.4", "2600:9::1"]
    assert "outside" in await box.tcp("www.example")
    assert await box.tcp("1.2.3.4", 81) == "ECONNREFUSED"


@pytest.mark.parametrize("address", UNREACHABLE.values(), ids=UNREACHABLE.keys())
async def test_shielded(box: Guest, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if address not in (GATEWAY, GATEWAY6):
        # It is there, as the host's side sees.
        with socket.create_connection((address, 80), 5):
            pass
    before = len(box.refusals())
    assert await box.tcp(address) in ("EHOSTUNREACH", "EACCES")
    assert await box.udp(address) in ("EHOSTUNREACH", "EACCES")
    told = box.refusals()[before:]
    written = socket.inet_ntop(family, socket.inet_pton(family, address))
    assert {(line["destination"], line["protocol"]) for line in told} == {(written, "tcp"), (written, "udp")}


async def test_addresses_that_never_leave_a_host(box: Guest) -> None:
    for address in ("255.255.255.255", "93.184.216.255", "224.0.0.1", "0.0.0.1", "240.0.0.1"):
        assert await box.udp(address) in ("timeout", "EHOSTUNREACH", "EACCES", "EINVAL", "ENETUNREACH"), address


def _frame(mac: str, kind: int, packet: bytes) -> str:
    return (frames.ethernet(bytes.fromhex("0266726b0001"), bytes.fromhex(mac.replace(":", "")), kind) + packet).hex()


def _udp(source: str, destination: str, port: int = 7, data: bytes = b"x") -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    there = socket.inet_pton(family, destination)
    return b"".join(frames.udp_packet(socket.inet_pton(family, source), 4000, there, port, data)) + data


async def test_forged_frames_reach_nobody(box: Guest) -> None:
    mac = await box.do("mac")
    inside = "192.0.0.2"
    whole = _udp(inside, "1.2.3.4")
    fragment = bytearray(whole)
    fragment[6:8] = b"\x20\x00"
    options = bytearray(whole[:20] + bytes(4) + whole[20:])
    options[0] = 0x46
    arp = struct.Struct("!HHBBH6s4s6s4s")
    own = bytes.fromhex(mac.replace(":", ""))
    attempts = {
        "source": _frame(mac, frames.IPV4, _udp("10.88.0.5", "1.2.3.4")),
        "source, IPv6": _frame(mac, frames.IPV6, _udp("2600:5::2", "2600:9::1")),
        "fragment": _frame(mac, frames.IPV4, bytes(fragment)),
        "options": _frame(mac, frames.IPV4, bytes(options)),
        "extension": _frame(mac, frames.IPV6, frames.ip_header(INSIDE[6].guest, INSIDE[6].gateway, 0, 8) + bytes(8)),
        "neighbour": _frame(
            mac, frames.ARP, arp.pack(1, 0x800, 6, 4, 2, own, INSIDE[4].guest, own, bytes((192, 0, 0, 1)))
        ),
        "source, ARP": _frame(
            mac, frames.ARP, arp.pack(1, 0x800, 6, 4, 1, own, bytes((192, 0, 0, 1)), own, INSIDE[4].guest)
        ),
        "neighbour, IPv6": _frame(
            mac, frames.IPV6, frames.ip_header(INSIDE[6].guest, INSIDE[6].gateway, 58, 24) + b"\x86" + bytes(23)
        ),
        "protocol": _frame(mac, frames.IPV4, frames.ip_header(INSIDE[4].guest, b"\1\2\3\4", 47, 4) + bytes(4)),
        "ethertype": _frame(mac, 0x8847, bytes(40)),
        "length": _frame(mac, frames.IPV4, whole[:21]),
    }
    assert await box.do("raw", frame=_frame(mac, frames.IPV4, whole)), "an honest one is answered"
    for reason, frame in attempts.items():
        before = len(box.refusals())
        assert await box.do("raw", frame=frame, timeout=0.2) == [], reason
        assert [line["reason"] for line in box.refusals()[before:]] == [reason.partition(",")[0]], reason
    assert await box.do("raw", frame=_frame("02:11:22:33:44:55", frames.IPV4, whole), timeout=0.2) == []
    assert await box.udp("1.2.3.4") == "hello", "the honest ones still pass"


async def test_a_policy_replaced_during_a_transfer_cuts_it(box: Guest) -> None:
    number = await box.do("pull", address="1.2.3.4", port=19, size=1 << 20)
    other = await box.do("pull", address="1.2.3.5", port=19, size=1 << 20)
    try:
        await box.container.set_network_policy(deny_net=["1.2.3.4"])
        assert await box.do("more", number=number) == "ECONNRESET"
        assert await box.do("more", number=other) == "goes on"
        assert await box.tcp("1.2.3.4") == "EHOSTUNREACH"
        assert "outside" in await box.tcp("1.2.3.5")
    finally:
        await box.container.set_network_policy()
    assert "outside" in await box.tcp("1.2.3.4")


async def test_rules_open_and_close(box: Guest) -> None:
    change = box.container.set_network_policy
    try:
        await change(allow_net=["1.2.3.4:80/tcp", "10.88.0.0/16", f"{HOST4}/32", "127.0.0.1:80", "2600:9::/64"])
        assert "outside" in await box.tcp("1.2.3.4")
        assert await box.tcp("1.2.3.4", 7) == "EHOSTUNREACH"
        assert await box.udp("1.2.3.4") == "EHOSTUNREACH"
        assert await box.tcp("1.2.3.5") == "EHOSTUNREACH"
        assert "outside" in await box.tcp("10.88.0.5")
        assert await box.tcp("10.88.0.1") == "EHOSTUNREACH", "the host's own needs a rule of its own"
        assert "the host" in await box.tcp(HOST4)
        assert "the host" in await box.tcp(GATEWAY)
        assert await box.udp("2600:9::1") == "hello"
        await change(allow_net=["10.0.0.0/8"], deny_net=["10.1.0.0/16"])
        assert "outside" in await box.tcp("10.88.0.5")
        assert await box.tcp("10.1.2.3") == "EHOSTUNREACH"
        assert await box.tcp("64:ff9b::a01:203") == "EACCES"
        await change(allow_net=["all"])
        assert "outside" in await box.tcp("1.2.3.5")
        assert await box.tcp("10.88.0.5") == "EHOSTUNREACH", "the shield stands against a rule for everything"
        assert await box.tcp("45.45.45.5") == "EHOSTUNREACH"
        await change(deny_net=["all"])
        assert await box.tcp("1.2.3.4") == "EHOSTUNREACH"
        assert await box.tcp("2600:9::1") == "EACCES"
    finally:
        await change()


async def test_an_address_that_comes_later_is_the_hosts_too(box: Guest) -> None:
    assert await box.udp("1.2.3.6") == "hello"
    add = await asyncio.create_subprocess_exec("ip", "addr", "add", "1.2.3.6/32", "dev", "br1")
    assert await add.wait() == 0
    await asyncio.sleep(1.1)  # a destination is judged anew after a second
    assert await box.tcp("1.2.3.6") == "EHOSTUNREACH"
    assert await box.udp("1.2.3.6") == "EHOSTUNREACH"


async def test_much_arrives_whole_in_both_directions(box: Guest) -> None:
    assert await box.do("push", address="1.2.3.4", port=9, size=16 << 20) == 16 << 20
    number = await box.do("pull", address="1.2.3.4", port=19, size=16 << 20)
    assert await box.do("more", number=number) == "goes on"
