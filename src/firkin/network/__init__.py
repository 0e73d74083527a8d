"""The guest's network: a router, resolver and translator of our own behind QEMU's stream socket."""

from firkin.network.network import Network, NetworkPlan
from firkin.network.policy import Policy

__all__ = ["Network", "NetworkPlan", "Policy"]
