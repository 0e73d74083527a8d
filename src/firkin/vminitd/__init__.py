"""The guest link: framing, RPC and the agent's client.

`Link` is the connection, `Agent` the calls, `Stream` and `Listener` the bytes; `firkin.vminitd.control` is the same
link between the owner of a VM and other processes, `relay` and `socket_relay` join streams to files and sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin.lazy import attributes

if TYPE_CHECKING:
    from firkin.vminitd.agent import Agent
    from firkin.vminitd.link import INITIAL_SENTINEL, Link, Peer
    from firkin.vminitd.rpc import Call
    from firkin.vminitd.stream import Listener, Stream

__all__ = ["INITIAL_SENTINEL", "Agent", "Call", "Link", "Listener", "Peer", "Stream"]

__getattr__ = attributes(
    __name__,
    {
        "Agent": "agent",
        "Call": "rpc",
        "INITIAL_SENTINEL": "link",
        "Link": "link",
        "Listener": "stream",
        "Peer": "link",
        "Stream": "stream",
    },
)
