"""The guest's network cards: what the agent is called with, once for a boot and once for each fork."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from firkin.vminitd.agent import Agent
    from firkin.vmm.config import VmConfig

__all__ = ["identify", "wire"]

# As in Docker: programs without rights may ping and serve small port numbers, which are the VM's own.
_FREE = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}


def wire(agent: Agent, config: VmConfig) -> Iterator[Awaitable[Any]]:
    """Submit the calls that bring each card up with its addresses and routes, which all forks then have."""
    for index, network in enumerate(config.networks):
        link = f"eth{index}"
        # Routes are set here: nobody is to be asked for them.
        quiet = {f"net.ipv6.conf.{link}.accept_ra": "0", f"net.ipv6.conf.{link}.dad_transmits": "0"}
        yield agent.sysctl(quiet | _FREE)
        yield agent.set_link(link, up=True, mtu=network.mtu)
        for address in network.addresses:
            yield agent.add_address(link, address)
        for gateway in network.gateways:
            yield agent.add_route(link, gateway=gateway)


def identify(agent: Agent, config: VmConfig) -> Iterator[Awaitable[Any]]:
    """Submit the calls that give a fork its own station addresses: its cards come with those of the saved VM."""
    for index, network in enumerate(config.networks):
        yield agent.set_link(f"eth{index}", up=True, mac=bytes.fromhex(network.mac.replace(":", "")))
