"""The guest link: framing, RPC and the agent's client.

`Link` is the connection, `Agent` the calls, `Stream` and `Listener` the bytes; `firkin.vminitd.control` is the same
link between the owner of a VM and other processes, `relay` and `socket_relay` join streams to files and sockets.
"""

from firkin.vminitd.agent import Agent
from firkin.vminitd.link import INITIAL_SENTINEL, Link, Peer
from firkin.vminitd.rpc import Call
from firkin.vminitd.stream import Listener, Stream

__all__ = ["INITIAL_SENTINEL", "Agent", "Call", "Link", "Listener", "Peer", "Stream"]
