"""Ports of the host that lead into the guest: bound by whoever asks for them, served by the network's thread.

A program in the guest sees the gateway's address and a port that is ours as the other end, whoever called.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from firkin.errors import StateError
from firkin.network.plan import INSIDE

if TYPE_CHECKING:
    from firkin.network.stack import Stack

__all__ = ["Bound", "Served", "bind"]

_BACKLOG: Final = 4096
_ACCEPTS: Final = 64
_CLIENTS: Final = 1024
_IDLE: Final = 120.0
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Bound(NamedTuple):
    """A bound socket of the host, not served yet; `close` gives the port back."""

    sock: socket.socket
    host_ip: str
    host_port: int
    guest_port: int
    protocol: Literal["tcp", "udp"]

    def close(self) -> None:
        """Give the port back."""
        self.sock.close()


def bind(host_ip: str, host_port: int, guest_port: int, protocol: Literal["tcp", "udp"]) -> Bound:
    """Take the host's port; 0 picks a free one. Raises `StateError` where it is in use or not to be had."""
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host_ip, host_port))
        if protocol == "tcp":
            sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{f'[{host_ip}]' if family == socket.AF_INET6 else host_ip}:{host_port}/{protocol}"
        why = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
        hint = "choose another, or 0 for a free one" if error.errno == errno.EADDRINUSE else None
        raise StateError(f"can't publish a port at {where}: {why}", hint=hint) from error
    return Bound(sock, host_ip, int(sock.getsockname()[1]), guest_port, protocol)


class Served:
    """A bound port that leads into the guest, until `close`."""

    def __init__(self, stack: Stack, bound: Bound) -> None:
        self._stack = stack
        self.bound = bound
        self._clients: OrderedDict[tuple[object, ...], _Client] = OrderedDict()
        self._open = True
        self._serve()
        stack.every_second(self._expire)

    def _serve(self) -> None:
        self._stack.watch(self.bound.sock, 1, self._accept if self.bound.protocol == "tcp" else self._receive)

    def _accept(self, _events: int) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, _ = self.bound.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORTAGES:
                    # What waits is taken in a second, not looked at all the time until then.
                    self._stack.unwatch(self.bound.sock)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._stack.call_guest(sock, self.bound.guest_port):
                self._stack.refuse("too-many", "tcp", published=self.bound.host_port)
                sock.close()

    def _receive(self, _events: int) -> None:
        for _ in range(_ACCEPTS):
            try:
                data, client = self.bound.sock.recvfrom(0x10000)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error of an earlier answer
            known = self._clients.get(client)
            if known is None and (known := self._meet(client)) is None:
                continue
            self._clients[client] = known._replace(used=self._stack.now)
            self._clients.move_to_end(client)
            self._stack.send_udp(INSIDE[4].gateway, known.port, self.bound.guest_port, data)

    def _meet(self, client: tuple[object, ...]) -> _Client | None:
        if len(self._clients) >= _CLIENTS:
            self._drop(next(iter(self._clients)))
        answers = self._stack.answers
        for _ in range(64):
            port = int.from_bytes(os.urandom(2), "big") | 0x8000
            if (port, self.bound.guest_port) not in answers:
                answers[port, self.bound.guest_port] = self._answer(client)
                return _Client(port, self._stack.now)
        return None

    def _answer(self, client: tuple[object, ...]) -> Callable[[bytes], None]:
        def answer(data: bytes) -> None:
            if (known := self._clients.get(client)) is not None:
                self._clients[client] = known._replace(used=self._stack.now)
            with suppress(OSError):
                self.bound.sock.sendto(data, client)

        return answer

    def _expire(self) -> None:
        """Forget clients of UDP that were silent for long; serve again after a shortage."""
        if self._open:
            self._serve()
        for client, known in tuple(self._clients.items()):
            if self._stack.now - known.used > _IDLE:
                self._drop(client)

    def _drop(self, client: tuple[object, ...]) -> None:
        known = self._clients.pop(client)
        self._stack.answers.pop((known.port, self.bound.guest_port), None)

    def close(self) -> None:
        """Give the port back; connections that were made through it go on."""
        if not self._open:
            return
        self._open = False
        self._stack.no_more(self._expire)
        for client in tuple(self._clients):
            self._drop(client)
        self._stack.unwatch(self.bound.sock)
        self.bound.close()


class _Client(NamedTuple):
    port: int
    used: float
