"""DNS over TCP (RFC 7766): a conversation of the guest with the resolver."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from firkin.network.stack import Stack

__all__ = ["DnsStream"]

# A guest that asks and takes no answers gets no more of them.
_MOST_WAITING: Final = 1 << 18
_LONGEST_QUERY: Final = 1 << 12


class DnsStream:
    """The resolver's end of a stream socket: messages, each after its length. Ends with the other end."""

    def __init__(self, stack: Stack, sock: socket.socket) -> None:
        self._stack = stack
        self._sock = sock
        self._received = b""
        self._out: deque[bytes] = deque()
        self._open = True
        stack.watch(sock, 1, self._on_event)

    def _on_event(self, events: int) -> None:
        if events & 4:
            self._flush()
        if not events & ~4:
            return
        try:
            data = self._sock.recv(_LONGEST_QUERY)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        while len(self._received) >= 2:
            size = int.from_bytes(self._received[:2], "big")
            if size > _LONGEST_QUERY:
                self._close()
                return
            if len(self._received) < 2 + size:
                break
            message, self._received = self._received[2 : 2 + size], self._received[2 + size :]
            self._stack.resolver.ask(message, stream=True, reply=self._reply)
        if not data:
            self._close()

    def _reply(self, message: bytes) -> None:
        if self._open and sum(map(len, self._out)) < _MOST_WAITING:
            self._out.append(len(message).to_bytes(2, "big") + message)
            self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._sock.send(self._out[0])
                self._out[0] = self._out[0][sent:]
                if not self._out[0]:
                    self._out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        self._stack.watch(self._sock, 5 if self._out else 1, self._on_event)

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._stack.unwatch(self._sock)
            self._sock.close()
