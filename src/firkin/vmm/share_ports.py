"""Shares of a fork: plugged in once it runs, since no saved VM can have any.

QEMU 7.2 neither saves nor loads a VM that has a vhost-user-fs, and virtio-mmio knows no hot-plug. So the base VM of a
layout with shares has PCI Express with empty ports, a fork of it gets its shares there, and the guest looks again.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["PORTS", "port_arguments"]

PORTS = 8
"""How many shares a VM can have."""


def port_arguments() -> Iterator[str]:
    """QEMU's arguments for the empty ports. Without a power controller what is plugged in needs no driver's leave."""
    for index in range(PORTS):
        place = f"bus=pcie.0,addr={index + 1:#x},chassis={index + 1},slot={index + 1}"
        yield from ("-device", f"pcie-root-port,id=port{index},{place},power_controller_present=off")
