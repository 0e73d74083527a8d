"""The guest's network: a router, resolver and translator of our own behind QEMU's stream socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin.lazy import attributes

if TYPE_CHECKING:
    from firkin.network.network import Network, NetworkPlan
    from firkin.network.policy import Policy

__all__ = ["Network", "NetworkPlan", "Policy"]

__getattr__ = attributes(__name__, {"Network": "network", "NetworkPlan": "network", "Policy": "policy"})
