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

# In seconds, counts and milliseconds (kernel: Documentation/networking/ip-sysctl.rst).
_QUIET_IPV6 = {
    "accept_ra": "0",
    "dad_transmits": "0",
    "router_solicitation_delay": "0",
    "mldv2_unsolicited_report_interval": "1",
}


def wire(agent: Agent, config: VmConfig) -> Iterator[Awaitable[Any]]:
    """Submit the calls that bring each card up with its addresses and routes, which all forks then have."""
    for index, network in enumerate(config.networks):
        link = f"eth{index}"
        # Routes are set here: nobody is to be asked for them. And what the kernel says by itself when a link comes up
        # it shall say now, before the VM is saved, not after seconds in each fork, with the lock that its start needs.
        quiet = {f"net.ipv6.conf.{link}.{key}": value for key, value in _QUIET_IPV6.items()}
        yield agent.sysctl(quiet | {f"net.ipv4.conf.{link}.igmpv3_unsolicited_report_interval": "1"} | _FREE)
        yield agent.set_link(link, up=True, mtu=network.mtu)
        for address in network.addresses:
            yield agent.add_address(link, address)
        for gateway in network.gateways:
            yield agent.add_route(link, gateway=gateway)


def identify(agent: Agent, config: VmConfig) -> Iterator[Awaitable[Any]]:
    """Submit the calls that give a fork its own station addresses: its cards come with those of the saved VM."""
    for index, network in enumerate(config.networks):
        yield agent.set_link(f"eth{index}", up=True, mac=bytes.fromhex(network.mac.replace(":", "")))
