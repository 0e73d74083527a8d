"""Two sandboxes on one host: neither reaches the other's card, nor what the other publishes, unless a rule says so."""

from __future__ import annotations

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

SERVED = 8080
LOOPBACK, EVERYWHERE = 18080, 18081
REFUSED = ("EHOSTUNREACH", "EACCES")
# By every address of the host, and in every form of it that a guest can write.
WAYS = {
    "loopback, as the gateway": (INSIDE[4].gateway_text, LOOPBACK),
    "the gateway": (INSIDE[4].gateway_text, EVERYWHERE),
    "the gateway, IPv6": (INSIDE[6].gateway_text, EVERYWHERE),
    "the host": (HOST4, EVERYWHERE),
    "the host, IPv6": (HOST6, EVERYWHERE),
    "the host, translated (NAT64)": ("64:ff9b::" + socket.inet_aton(HOST4).hex(":", 2), EVERYWHERE),
    "the host, 6to4": ("2002:" + socket.inet_aton(HOST4).hex(":", 2) + "::1", EVERYWHERE),
    "the host, mapped": (f"::ffff:{HOST4}", EVERYWHERE),
    "a bridge": ("10.88.0.1", EVERYWHERE),
    "a public address on a bridge": ("45.45.45.1", EVERYWHERE),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(world: World) -> AsyncIterator[Guest]:
    published = [
        f"{ip}:{port}:{SERVED}{protocol}"
        for ip, port in (("127.0.0.1", LOOPBACK), ("0.0.0.0", EVERYWHERE), ("[::]", EVERYWHERE))
        for protocol in ("", "/udp")
    ]
    async with guest(publish=published, privileged=True) as made:
        await made.do("echo", port=SERVED)
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(server: Guest) -> AsyncIterator[Guest]:
    async with guest(privileged=True) as made:
        yield made


def from_the_host(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), 10) as sock:
        sock.sendall(b"hello")
        return sock.recv(100)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_a_published_port_of_another_is_out_of_reach(server: Guest, box: Guest, way: tuple[str, int]) -> None:
    address, port = way
    before = len(box.refusals())
    assert await box.tcp(address, port, data="hello") in REFUSED
    # A mapped address is IPv4's, where nothing listens on the card's own wire.
    assert await box.udp(address, port) in REFUSED
    assert {line["protocol"] for line in box.refusals()[before:]} == {"tcp", "udp"}


async def test_the_ports_are_there_for_the_host(server: Guest) -> None:
    for address, port in (("127.0.0.1", LOOPBACK), (HOST4, EVERYWHERE), (HOST6, EVERYWHERE), ("10.88.0.1", EVERYWHERE)):
        assert from_the_host(address, port) == b"hello"


@pytest.mark.parametrize("version", [4, 6])
async def test_the_address_of_another_is_ones_own(server: Guest, box: Guest, version: int) -> None:
    own = socket.inet_ntop(INSIDE[version].family, INSIDE[version].guest)
    # It is served inside the other, and every VM is alone on its wire with the same address.
    assert await server.tcp(own, SERVED, data="hello") == "hello"
    assert await box.tcp(own, SERVED) == "ECONNREFUSED"
    assert await box.udp(own, SERVED) == "ECONNREFUSED"


async def test_no_frame_arrives_at_another(server: Guest, box: Guest) -> None:
    theirs = bytes.fromhex((await server.do("mac")).replace(":", ""))
    mine = bytes.fromhex((await box.do("mac")).replace(":", ""))
    quiet = await server.do("received")
    inside = INSIDE[4]
    asked = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, mine, inside.guest, bytes(6), inside.guest)
    packet = b"".join(frames.udp_packet(inside.guest, 4000, inside.guest, SERVED, b"hello")) + b"hello"
    for target in (theirs, b"\xff" * 6, bytes.fromhex("333300000001")):
        for source in (mine, theirs):
            for kind, data in ((frames.ARP, asked), (frames.IPV4, packet)):
                frame = frames.ethernet(target, source, kind) + data
                await box.do("raw", frame=frame.hex(), timeout=0.1)
    assert await server.do("received") == quiet


async def test_a_rule_opens_one_port_of_another(server: Guest, box: Guest) -> None:
    try:
        await box.container.set_network_policy(allow_net=[f"127.0.0.1:{LOOPBACK}"])
        assert await box.tcp(INSIDE[4].gateway_text, LOOPBACK, data="hello") == "hello"
        assert await box.udp(INSIDE[4].gateway_text, LOOPBACK) == "hello"
        assert await box.tcp(INSIDE[4].gateway_text, EVERYWHERE, data="hello") in REFUSED
        assert await box.tcp(HOST4, EVERYWHERE, data="hello") in REFUSED
        await box.container.set_network_policy(allow_net=[f"{HOST4}:{EVERYWHERE}/tcp"])
        assert await box.tcp(HOST4, EVERYWHERE, data="hello") == "hello"
        assert await box.udp(HOST4, EVERYWHERE) in REFUSED
        assert await box.tcp(INSIDE[4].gateway_text, LOOPBACK, data="hello") in REFUSED
    finally:
        await box.container.set_network_policy()
    assert await box.tcp(HOST4, EVERYWHERE, data="hello") in REFUSED
