"""A VM's network: the cable for QEMU, the thread behind it, its policy and its ports."""

from __future__ import annotations

import logging
import resource
import socket
from collections.abc import Callable, Iterable
from dataclasses import field
from pathlib import Path
from typing import TypeVar

from firkin.errors import NotFoundError, StateError
from firkin.frozen import dataclass
from firkin.network.loop import Loop
from firkin.network.plan import random_mac
from firkin.network.policy import Policy
from firkin.network.ports import Bound, Served
from firkin.network.report import Refusals
from firkin.network.routes import Routes
from firkin.network.stack import Stack
from firkin.network.tcp import Connection
from firkin.network.wire import Wire, WireError

__all__ = ["Network", "NetworkPlan"]

_log = logging.getLogger("firkin.network")
_T = TypeVar("_T")
# Each connection of a guest is a descriptor of this process.
_DESCRIPTORS = 65_536


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """What a network shall be. `servers`: name servers in the place of the host's. `report`: a file for refusals."""

    mac: str = field(default_factory=random_mac)
    policy: Policy = field(default_factory=Policy)
    servers: tuple[str, ...] = ()
    report: Path | None = None


class Network:
    """Made for one start of one VM, a restored one too: connections that a snapshot had are reset.

    `guest` is the socket to be handed to QEMU. Call `start` before the guest runs, `close` after QEMU has ended.
    `cable` is both ends of a stream socket, where QEMU has its own already; they are the network's from now on.
    """

    def __init__(self, plan: NetworkPlan, cable: tuple[socket.socket, socket.socket] | None = None) -> None:
        self.mac = plan.mac
        self.guest, ours = cable or socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours = ours
        self._routes = Routes()
        self._served: list[Served] = []
        _raise_limit()
        self._loop = Loop(self._settle, self._failed)
        self._stack = Stack(
            Wire(ours),
            self._loop,
            self._routes,
            Refusals(plan.report),
            plan.policy,
            mac=bytes.fromhex(plan.mac.replace(":", "")),
            servers=plan.servers,
        )

    def start(self, bound: Iterable[Bound] = ()) -> None:
        """Serve the guest, and the ports of `bound`, which belong to the network from now on."""
        self._served = [Served(self._stack, each) for each in bound]
        self._loop.start()

    @property
    def policy(self) -> Policy:
        """What may be reached now."""
        return self._stack.policy

    @property
    def refused(self) -> int:
        """How many packets and queries were refused so far."""
        return self._stack.refusals.total

    @property
    def ports(self) -> tuple[Bound, ...]:
        """What is published now."""
        return tuple(served.bound for served in self._served)

    @property
    def connections(self) -> list[Connection]:
        """TCP connections of the guest that stand now, for `break_off` of the network that it is restored with."""
        return self._call(lambda: self._stack.connections)

    def break_off(self, connections: Iterable[Connection]) -> None:
        """Have the restored guest find out that these are gone."""
        self._call(lambda: self._stack.break_off(connections))

    def set_policy(self, policy: Policy) -> None:
        """Replace the policy; connections that it does not allow are cut before this returns."""
        self._call(lambda: self._stack.set_policy(policy))

    def publish(self, bound: Bound) -> None:
        """Serve one more port."""
        self._call(lambda: self._served.append(Served(self._stack, bound)))

    def unpublish(self, host_ip: str, host_port: int, protocol: str) -> None:
        """Give a port back; its connections go on. Raises `NotFoundError`."""

        def take() -> None:
            for served in self._served:
                if (served.bound.host_ip, served.bound.host_port, served.bound.protocol) == (
                    host_ip,
                    host_port,
                    protocol,
                ):
                    served.close()
                    self._served.remove(served)
                    return
            raise NotFoundError(f"{host_ip}:{host_port}/{protocol} is not published", hint="`firkin port` lists them")

        self._call(take)

    def close(self) -> None:
        """End every connection and give every port back. Safe to call again."""
        self._loop.stop()
        for served in self._served:
            served.close()
        self._served = []
        self._stack.close()
        self._routes.close()
        self._ours.close()
        self.guest.close()

    def _call(self, work: Callable[[], _T]) -> _T:
        try:
            return self._loop.call(work)
        except RuntimeError as error:
            raise StateError("the network has ended with its VM") from error

    def _settle(self) -> float | None:
        return self._stack.settle()

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, WireError):
            _log.debug("the cable: %s", error)
        else:
            _log.error("the network broke, its VM goes on without: %s", error, exc_info=error)


def _raise_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
