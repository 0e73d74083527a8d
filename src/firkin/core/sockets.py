"""A container's relayed Unix sockets: the host's ends of them, from before the boot to the container's end.

A published path is the socket itself, so that its mode decides who may connect. What a killed owner leaves of it is
found by the VM's folder, which names the path (`firkin.vmm.published`), and removed by the next start.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from firkin import faults
from firkin.errors import InvalidInputError, LinkError, NotFoundError
from firkin.vmm.published import note, withdraw

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from firkin.core.socket_relay import SocketRelay
    from firkin.types import ContainerId
    from firkin.vmm.machine import VirtualMachine

__all__ = ["SocketRelays"]

_NOTED = faults.declare("socket.noted", "the VM's folder names a path of the host that is not bound yet")
_BOUND = faults.declare("socket.bound", "a published socket is there, nobody carries its connections")
_RELAYED = faults.declare("socket.relayed", "the guest knows of a relay, nothing serves it yet")

_BACKLOG = 512
# What is left of sun_path behind /proc/self/fd/N/.
_LONGEST_NAME = 84
_CONNECT_LIMIT = 10.0


class _Live(NamedTuple):
    id: str
    relay: SocketRelay
    task: asyncio.Task[None]


class SocketRelays:
    """`bind` before the boot, `start` when the container's root is there, `aclose` always."""

    def __init__(self, folder: Path, relays: Iterable[SocketRelay]) -> None:
        self._folder = folder
        self._wanted = tuple(relays)
        self._bound: dict[SocketRelay, socket.socket] = {}
        self._live: list[_Live] = []
        self._numbers = itertools.count(1)

    @property
    def relays(self) -> tuple[SocketRelay, ...]:
        """Those that are served now."""
        return tuple(live.relay for live in self._live)

    def bind(self) -> None:
        """Bind the published paths. Raises `InvalidInputError` for one that is taken; `release` undoes the others."""
        for relay in self._wanted:
            self._bind(relay)

    def release(self) -> None:
        """Remove the published paths. Safe to call again."""
        for relay in list(self._bound):
            self._unbind(relay)

    async def start(self, vm: VirtualMachine, container: ContainerId) -> None:
        """Serve all that were asked for; the container's root is there, its first process need not run."""
        for relay in self._wanted:
            await self.serve(vm, container, relay)

    async def add(self, vm: VirtualMachine, container: ContainerId, relay: SocketRelay) -> None:
        """Begin a relay at run time. Raises `InvalidInputError` for a path of the host that is taken, `AgentError`."""
        self._bind(relay)
        try:
            await self.serve(vm, container, relay)
        except BaseException:
            self._unbind(relay)
            raise

    async def remove(self, vm: VirtualMachine, relay: SocketRelay) -> None:
        """End a relay, and its connections. Raises `NotFoundError`, `AgentError`."""
        found = next((live for live in self._live if live.relay == relay), None)
        if found is None:
            raise NotFoundError(f"no socket is relayed between {relay.host} and {relay.guest}")
        self._live.remove(found)
        await _cancelled(found.task)
        self._unbind(relay)
        await vm.agent.stop_proxy(found.id)

    async def serve(self, vm: VirtualMachine, container: ContainerId, relay: SocketRelay) -> None:
        """Tell the guest of `relay` and carry its connections."""
        from firkin.vminitd.socket_relay import relay_from_guest, relay_into_guest

        id, port = f"socket-{next(self._numbers)}", vm.link.allocate_port()
        work: Coroutine[None, None, None]
        if relay.into_guest:
            listener = vm.link.listen(port, backlog=_BACKLOG)
            work = relay_from_guest(listener, lambda: _connected(relay.host))
        else:
            work = relay_into_guest(vm.link, port, self._bound[relay])
        try:
            await vm.agent.proxy_socket(
                id,
                str(relay.guest),
                port,
                container=container,
                into_guest=relay.into_guest,
                mode=relay.mode,
                uid=relay.uid,
                gid=relay.gid,
            )
        except BaseException:
            work.close()
            if relay.into_guest:
                listener.close()
            raise
        faults.point(_RELAYED)
        self._live.append(_Live(id, relay, asyncio.create_task(_until_the_link_ends(work))))

    async def aclose(self) -> None:
        """End all relays and remove the published paths. Safe to call again."""
        await asyncio.gather(*(_cancelled(live.task) for live in self._live))
        self._live.clear()
        self.release()

    def _bind(self, relay: SocketRelay) -> None:
        if relay.into_guest:
            return
        if relay in self._bound:
            raise InvalidInputError(f"{relay.host} is published twice", value=relay)
        note(self._folder, relay.host)
        faults.point(_NOTED)
        self._bound[relay] = _listening(relay)
        faults.point(_BOUND)

    def _unbind(self, relay: SocketRelay) -> None:
        if listening := self._bound.pop(relay, None):
            listening.close()
            withdraw(self._folder, relay.host)


def _listening(relay: SocketRelay) -> socket.socket:
    """The socket at the host's path, whose mode is set before anybody can connect."""
    path = relay.host
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise InvalidInputError(
            f"{path.name} is too long for a socket", value=relay, hint=f"at most {_LONGEST_NAME} bytes"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.bind(f"/proc/self/fd/{folder}/{path.name}")
            os.chmod(path.name, relay.mode, dir_fd=folder)
        finally:
            os.close(folder)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise InvalidInputError(
                f"{path} exists already", value=relay, hint="remove it, or choose another"
            ) from error
        raise InvalidInputError(f"no socket can be made at {path}: {error.strerror}", value=relay) from error
    return sock


async def _connected(path: Path) -> socket.socket:
    """A connection to the host's socket at `path`, however long. Raises `OSError`: the guest's connection ends then."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            async with asyncio.timeout(_CONNECT_LIMIT):
                while not _tried(sock, file):  # noqa: ASYNC110 - there is nothing to wait on
                    await asyncio.sleep(0.01)
        finally:
            os.close(file)
    except BaseException:
        sock.close()
        raise
    return sock


def _tried(sock: socket.socket, file: int) -> bool:
    """False where the server's queue is full: EAGAIN, which poll(2) does not wait for (connect(2))."""
    try:
        sock.connect(f"/proc/self/fd/{file}")
    except BlockingIOError:
        return False
    return True


async def _until_the_link_ends(work: Coroutine[None, None, None]) -> None:
    with suppress(LinkError):
        await work


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
