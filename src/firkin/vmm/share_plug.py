"""Plugging shares into the ports of a fork that runs (`share_ports`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from firkin.errors import AgentError, VirtualMachineError
from firkin.vmm.qmp import Qmp

if TYPE_CHECKING:
    from firkin.vminitd.agent import Agent
    from firkin.vmm.config import Share
    from firkin.vmm.folder import VmFolder

__all__ = ["plug"]


async def plug(folder: VmFolder, agent: Agent, shares: Sequence[Share], sockets: Sequence[socket.socket]) -> None:
    """Give a fork its shares, over the sockets to their daemons. Raises `VirtualMachineError`."""
    qmp = Qmp(folder)
    try:
        for index, (share, connected) in enumerate(zip(shares, sockets, strict=True)):
            name = f"share{index}"
            await qmp.execute("getfd", {"fdname": name}, fd=connected.fileno())
            address = {"type": "fd", "data": {"str": name}}
            backend = {"type": "socket", "data": {"addr": address, "server": False}}
            await qmp.execute("chardev-add", {"id": name, "backend": backend})
            device = {"driver": "vhost-user-fs-pci", "id": name, "chardev": name, "tag": share.tag}
            await qmp.execute("device_add", device | {"bus": f"port{index}"})
    finally:
        await qmp.aclose()
    # The guest numbered the ports' buses from 1 on, in their order. Its answer comes when the driver has the share.
    buses = (f"/sys/class/pci_bus/0000:{index + 1:02x}/rescan" for index in range(len(shares)))
    try:
        await asyncio.gather(*(agent.write_file(bus, b"1") for bus in buses))
    except AgentError as error:
        raise VirtualMachineError("the guest has no ports for its shares") from error
