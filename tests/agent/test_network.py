"""Interfaces, addresses and routes, as the guest's own tools see them."""

from __future__ import annotations

import pytest

from firkin.errors import AgentError
from firkin.vminitd._generated import agent_pb2 as pb
from tests.agent.guest import Guest

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]


async def test_loopback_is_up(guest: Guest) -> None:
    assert "127.0.0.1/8" in await guest.shell("ip addr show lo")


async def test_link_address_and_route(guest: Guest) -> None:
    await guest.call(pb.SetLink(name="lo", up=True, mtu=9000))
    await guest.call(pb.AddAddress(link="lo", address="192.0.2.2/24"))
    await guest.call(pb.AddAddress(link="lo", address="2001:db8::2/64"))
    await guest.call(pb.AddRoute(link="lo", destination="198.51.100.0/24"))
    await guest.call(pb.AddRoute(link="lo", gateway="192.0.2.1"))
    await guest.call(pb.AddRoute(link="lo", destination="default", gateway="192.0.2.7"))
    shown = await guest.shell("ip addr show lo; ip -6 addr show lo")
    assert "mtu 9000" in shown
    assert "192.0.2.2/24" in shown
    assert "2001:db8::2/64" in shown
    routes = await guest.shell("ip route")
    assert "198.51.100.0/24 dev lo" in routes
    assert "default via 192.0.2.7 dev lo" in routes


async def test_a_new_identity_replaces_the_old_one(guest: Guest) -> None:
    await guest.call(pb.AddAddress(link="lo", address="192.0.2.50/24"))
    message = guest.vm.resume_message()
    identity = message.networks.add()
    identity.link.CopyFrom(pb.SetLink(name="lo", up=True, mtu=1500))
    for address in ("127.0.0.1/8", "203.0.113.5/24"):
        identity.addresses.append(pb.AddAddress(link="lo", address=address))
    identity.routes.append(pb.AddRoute(link="lo", gateway="203.0.113.1"))
    await guest.call(message)
    shown = await guest.shell("ip addr show lo; ip route")
    assert "192.0.2.50" not in shown
    assert "203.0.113.5/24" in shown
    assert "default via 203.0.113.1" in shown


@pytest.mark.parametrize(
    ("request_", "errno"),
    [
        (pb.SetLink(name="nothere"), 19),
        (pb.SetLink(name="../lo"), 19),
        (pb.AddAddress(link="lo", address="300.1.1.1/8"), 22),
        (pb.AddAddress(link="lo", address="192.0.2.1/40"), 22),
        (pb.AddRoute(link="lo"), 22),
        (pb.AddRoute(link="lo", gateway="192.168.77.1", destination="10.0.0.0/8"), 101),
    ],
    ids=["missing", "path", "address", "prefix", "empty", "unreachable"],
)
async def test_refused(guest: Guest, request_: object, errno: int) -> None:
    with pytest.raises(AgentError) as caught:
        await guest.call(request_)
    assert caught.value.errno == errno
