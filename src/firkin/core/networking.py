"""A container's network: made before its VM, joined to its configuration, changed while it runs."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from firkin import faults
from firkin.core.publication import PortPublication
from firkin.errors import StateError
from firkin.network.plan import INSIDE, LARGEST_MTU, random_mac
from firkin.vmm.config import Network as Card

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from firkin.core.options import ContainerOptions
    from firkin.network.network import Network
    from firkin.network.ports import Bound
    from firkin.network.tcp import Connection
    from firkin.vmm import VmConfig

_OPENED = faults.declare("network.opened", "the host's ports are taken, there is no VM yet")

__all__ = ["ContainerNetwork", "lay_cable", "open_network"]

REFUSED = "refused.jsonl"
"""The file in a VM's folder that has its refusals, one JSON line each."""


def lay_cable(options: ContainerOptions, stack: ExitStack) -> ContainerNetwork | None:
    """What QEMU needs of the network that `options` ask for, closed by `stack`; None for none.

    The host's ports are taken here. Raises `StateError` for one that is in use.
    """
    return None if options.network == "none" else stack.enter_context(ContainerNetwork(options))


def open_network(options: ContainerOptions, folder: Path, stack: AsyncExitStack) -> ContainerNetwork | None:
    """As `lay_cable`, with what is behind it, at once."""
    network = None if options.network == "none" else stack.enter_context(ContainerNetwork(options))
    if network is not None:
        network.open(folder)
    return network


def bind_all(publications: Iterable[PortPublication], undone: ExitStack) -> list[Bound]:
    """Take the host's ports of all of them; `undone` gives them back."""
    from firkin.network.ports import bind

    bound = []
    for each in publications:
        bound.append(bind(each.host_ip, each.host_port, each.guest_port, each.protocol))
        undone.callback(bound[-1].close)
    return bound


class ContainerNetwork:
    """What a container's handle does with its network: first the cable for QEMU, with `open` what is behind it.

    Also for a restored VM: it gets an address of its own, and whatever connections its memory knows of are reset.
    A context manager: leaving it ends the network.
    """

    def __init__(self, options: ContainerOptions) -> None:
        self._options = options
        self._mac = options.mac_address or random_mac()
        self._mtu = options.mtu or LARGEST_MTU
        self._cable = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._network: Network | None = None
        with ExitStack() as undone:
            for end in self._cable:
                undone.callback(end.close)
            self._bound = bind_all(options.publish, undone)
            undone.pop_all()
        faults.point(_OPENED)

    def joined(self, config: VmConfig) -> VmConfig:
        """`config` with the card that leads to this network."""
        sides = INSIDE.values()
        card = Card(
            self._cable[0].fileno(),
            self._mac,
            tuple(side.guest_cidr for side in sides),
            tuple(side.gateway_text for side in sides),
            self._mtu,
        )
        return replace(config, networks=(card,))

    def open(self, folder: Path) -> None:
        """Serve the guest and the host's ports. To be called before the guest runs; `folder` is the VM's."""
        from firkin.network.network import Network, NetworkPlan

        options = self._options
        servers = options.dns.nameservers if options.dns else ()
        plan = NetworkPlan(mac=self._mac, policy=options.policy, servers=servers, report=folder / REFUSED)
        self._network = Network(plan, self._cable)
        self._network.start(self._bound)

    @property
    def network(self) -> Network:
        """The open network. Raises `StateError`."""
        if self._network is None:
            raise StateError("the network is not open yet")
        return self._network

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._network is not None:
            self._network.close()
        for port in self._bound:
            port.close()
        for end in self._cable:
            end.close()

    @property
    def ports(self) -> tuple[PortPublication, ...]:
        """What is published, with the host's ports that were picked."""
        return tuple(
            PortPublication(each.guest_port, each.host_port, each.host_ip, each.protocol) for each in self.network.ports
        )

    def describe(self) -> dict[str, Any]:
        """For `firkin inspect`."""
        return {
            "mac": self.network.mac,
            "mtu": self._mtu,
            "addresses": [side.guest_cidr for side in INSIDE.values()],
            "policy": self.network.policy.as_document(),
            "refused": self.network.refused,
            "ports": [port.as_document() for port in self.ports],
        }

    @property
    def connections(self) -> list[Connection]:
        """TCP connections of the guest; none where the network has ended."""
        try:
            return self.network.connections
        except StateError:
            return []

    def publish(self, publications: Iterable[PortPublication]) -> tuple[PortPublication, ...]:
        """Publish them all, or none. Raises `StateError`."""
        with ExitStack() as undone:
            bound = bind_all(publications, undone)
            for each in bound:
                self.network.publish(each)
            undone.pop_all()
        return tuple(PortPublication(each.guest_port, each.host_port, each.host_ip, each.protocol) for each in bound)

    def unpublish(self, publications: Iterable[PortPublication]) -> None:
        """Give ports back. Raises `NotFoundError` at the first that is not published."""
        for each in publications:
            found = [
                port
                for port in self.ports
                if (port.guest_port, port.host_ip, port.protocol) == (each.guest_port, each.host_ip, each.protocol)
                and each.host_port in (0, port.host_port)
            ]
            host_port = found[0].host_port if found else each.host_port
            self.network.unpublish(each.host_ip, host_port, each.protocol)


def parsed(port: PortPublication | str) -> tuple[PortPublication, ...]:
    """One publication or the text of several. Raises `InvalidInputError`."""
    return (port,) if isinstance(port, PortPublication) else PortPublication.parse(port)


def needed(network: ContainerNetwork | None) -> ContainerNetwork:
    """Raises `StateError` where the container has no network."""
    if network is None:
        raise StateError("the container has no network", hint="start it without --network none")
    return network
