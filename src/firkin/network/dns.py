"""The resolver that answers every DNS query of the guest, wherever it was sent: what the policy allows, nothing else.

Queries are parsed, and new ones go to the host's name servers from fresh sockets with random numbers; answers are
parsed and written anew. An address that is allowed by name alone opens a pinhole for its time to live.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Final

from firkin.network.dns_message import (
    AAAA,
    CNAME,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    A,
    Answer,
    DnsError,
    Question,
    Record,
    answer,
    parse_answer,
    parse_query,
    query,
)

if TYPE_CHECKING:
    from firkin.network.stack import Stack

__all__ = ["Resolver", "host_servers"]

_log = logging.getLogger("firkin.network")
_CONF = Path("/etc/resolv.conf")
_MOST_SERVERS = 3
_MOST_ASKED = 256
# Seconds for one server to answer; each is asked twice.
_PATIENCE: Final = 2.0
_ROUNDS: Final = 2
# An answer of no or a few seconds must live until the guest has connected; one of days would outlive what it named.
_LEAST_TTL, _LONGEST_TTL = 5, 3600
# HTTPS and SVCB carry addresses as hints, which open no pinhole.
_HINTS: Final = (64, 65)

Reply = Callable[[bytes], None]


def host_servers(path: Path = _CONF) -> tuple[str, ...]:
    """The name servers of resolv.conf(5), at most three; the host itself where it names none."""
    found = []
    with suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                found.append(words[1])
    return tuple(found[:_MOST_SERVERS]) or ("127.0.0.1",)


class Resolver:
    """`servers`: addresses to ask in the place of the host's."""

    def __init__(self, stack: Stack, servers: tuple[str, ...] = ()) -> None:
        self._stack = stack
        self._servers = servers
        self._asked: set[_Asked] = set()

    def ask(self, message: bytes, *, stream: bool, reply: Reply) -> None:
        """Answer a query by a call of `reply`, now or later; what is no query gets no answer."""
        try:
            asked = parse_query(message)
        except DnsError as error:
            self._stack.refuse("malformed-dns", "tcp" if stream else "udp", detail=str(error))
            return
        limit = 0xFFFF if stream else asked.size
        if not self._stack.policy.allows_name(asked.text):
            self._stack.refuse("unlisted", "dns", name=asked.text)
            reply(answer(asked, REFUSED, limit=limit))
        elif (asked.type in _HINTS and self._stack.policy.listed) or (asked.type == AAAA and not self._stack.has_ipv6):
            reply(answer(asked, 0, limit=limit))
        elif len(self._asked) >= _MOST_ASKED:
            reply(answer(asked, SERVFAIL, limit=limit))
        else:
            _Asked(self, asked, lambda found: reply(self._answer(asked, found, limit)))

    def _answer(self, asked: Question, found: Answer | None, limit: int) -> bytes:
        if found is None:
            return answer(asked, SERVFAIL, limit=limit)
        if found.code not in (0, NXDOMAIN):
            return answer(asked, found.code if found.code == REFUSED else SERVFAIL, limit=limit)
        records = tuple(map(_clamped, found.answers))
        if self._stack.policy.listed:
            records = self._listed(asked, records)
        return answer(asked, found.code, records, tuple(map(_clamped, found.authority)), limit=limit)

    def _listed(self, asked: Question, records: tuple[Record, ...]) -> tuple[Record, ...]:
        """The records that belong to the name, without addresses that it does not open; the others open theirs."""
        # The policy may have changed while the answer was under way.
        if not self._stack.policy.allows_name(asked.text):
            return ()
        names, kept = _chain(asked, records), []
        for record in records:
            if _folded(record.name) not in names:
                continue
            if record.type in (A, AAAA) and not self._stack.open_pinhole(record.data, asked.text, record.ttl):
                continue
            kept.append(record)
        return tuple(kept)

    @property
    def busy(self) -> bool:
        """Whether a query is under way."""
        return bool(self._asked)

    def servers(self) -> tuple[str, ...]:
        """The addresses of the servers that are asked: given, else the host's."""
        return self._servers or host_servers()

    def close(self) -> None:
        """Give up what was asked."""
        for asked in tuple(self._asked):
            asked.close()

    def expire(self) -> None:
        """Turn to the next server where one is silent."""
        for asked in tuple(self._asked):
            if asked.deadline <= self._stack.now:
                asked.next_server()


def _clamped(record: Record) -> Record:
    return record._replace(ttl=min(max(record.ttl, _LEAST_TTL), _LONGEST_TTL))


def _folded(name: tuple[bytes, ...]) -> bytes:
    return b".".join(name).lower()


def _chain(asked: Question, records: tuple[Record, ...]) -> set[bytes]:
    """The asked name and those that its aliases lead to."""
    aliases = {_folded(record.name): record.data for record in records if record.type == CNAME}
    name, names = _folded(asked.name), set[bytes]()
    while name not in names:
        names.add(name)
        if (target := aliases.get(name)) is not None:
            name = _spelled(target)
    return names


def _spelled(data: bytes) -> bytes:
    labels, at = [], 0
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b".".join(labels).lower()


class _Asked:
    """One query under way: by UDP, and by TCP where the answer was cut off."""

    def __init__(self, resolver: Resolver, asked: Question, done: Callable[[Answer | None], None]) -> None:
        self._resolver = resolver
        self._stack = resolver._stack
        self._question = asked
        self._done = done
        self._left = [server for _ in range(_ROUNDS) for server in resolver.servers()]
        self._sock: socket.socket | None = None
        self._sent = asked
        self._received = b""
        self.deadline = 0.0
        resolver._asked.add(self)
        self.next_server()

    def next_server(self, server: str = "", *, stream: bool = False) -> None:
        """Ask `server` by TCP, or the next one by UDP; with none left, the answer is that there is none."""
        self._drop()
        while server or self._left:
            address = server or self._left.pop(0)
            server = ""
            self._server = address
            self._sent = self._question._replace(id=secrets.randbelow(0x10000))
            self._received = b""
            self.deadline = self._stack.now + _PATIENCE
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = (socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            try:
                self._sock = socket.socket(family, kind)
                with suppress(BlockingIOError):
                    self._sock.connect((address, 53))
                if not stream:
                    self._sock.send(query(self._sent))
                self._stack.watch(self._sock, EPOLLOUT if stream else EPOLLIN, self._streamed if stream else self._came)
            except OSError as error:
                _log.debug("the name server %s: %s", address, error)
                self._drop()
                continue
            return
        self._finish(None)

    def _came(self, _events: int) -> None:
        assert self._sock is not None
        try:
            message = self._sock.recv(0x10000)
            found = parse_answer(message, self._sent)
        except BlockingIOError:
            return
        except OSError:
            self.next_server()
            return
        except DnsError as error:
            # It may be a forged one: the true one can still come.
            _log.debug("an answer of a name server: %s", error)
            return
        if found.truncated:
            self.next_server(self._server, stream=True)
        else:
            self._conclude(found)

    def _streamed(self, events: int) -> None:
        assert self._sock is not None
        try:
            if events & EPOLLOUT:
                message = query(self._sent)
                self._sock.sendall(len(message).to_bytes(2, "big") + message)
                self._stack.watch(self._sock, EPOLLIN, self._streamed)
                return
            data = self._sock.recv(0x10000)
            self._received += data
            size = int.from_bytes(self._received[:2], "big")
            if len(self._received) >= 2 + size and len(self._received) > 2:
                self._conclude(parse_answer(self._received[2 : 2 + size], self._sent))
            elif not data:
                self.next_server()
        except BlockingIOError:
            return
        except (OSError, DnsError):
            self.next_server()

    def _conclude(self, found: Answer) -> None:
        """A server that fails is not the last word while there is another."""
        if found.code not in (0, NXDOMAIN) and self._left:
            self.next_server()
        else:
            self._finish(found)

    def _finish(self, found: Answer | None) -> None:
        self.close()
        self._done(found)

    def _drop(self) -> None:
        if self._sock is not None:
            self._stack.unwatch(self._sock)
            self._sock.close()
            self._sock = None

    def close(self) -> None:
        self._drop()
        self._resolver._asked.discard(self)
