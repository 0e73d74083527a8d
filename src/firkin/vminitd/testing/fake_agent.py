"""A stand-in for the guest agent: answers calls from a table, opens and takes streams like the real one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from firkin.errors import AgentError
from firkin.vminitd._generated import agent_pb2 as pb
from firkin.vminitd._generated.schema import AGENT_SCHEMA
from firkin.vminitd.agent import Agent
from firkin.vminitd.link import INITIAL_SENTINEL, Link
from firkin.vminitd.oneof import put
from firkin.vminitd.rpc import serve

__all__ = ["FakeAgent", "linked"]

# Takes the call's message, gives a message of `Reply` (None: Done) or raises `AgentError`.
Handler: TypeAlias = Callable[[Any], Awaitable[Any]]


class FakeAgent:
    """Answers the calls on `link` by `handlers`, whose keys are the fields of `Request.call`; all others with Done.

    `calls` lists what was called, in the order in which it was begun.
    """

    def __init__(self, link: Link, handlers: dict[str, Handler] | None = None) -> None:
        self.link = link
        self.handlers = handlers or {}
        self.calls: list[str] = []

    async def run(self) -> None:
        """Serve until the link ends."""
        await serve(self.link, self._answer, reading=asyncio.Semaphore(64))

    async def _answer(self, data: bytes) -> bytes:
        request = pb.Request.FromString(data)
        name = request.WhichOneof("call")
        if name is None:
            return pb.Reply(error=pb.Error(stage="call", errno=38, message="no such call")).SerializeToString()
        self.calls.append(name)
        try:
            result = await self.handlers[name](getattr(request, name)) if name in self.handlers else None
        except AgentError as error:
            reply = pb.Reply(error=pb.Error(stage=error.stage, errno=error.errno, message=error.message))
            return reply.SerializeToString()
        return put(pb.Reply(), "result", pb.Done() if result is None else result).SerializeToString()


@asynccontextmanager
async def linked(
    handlers: dict[str, Handler] | None = None, *, sentinel: bytes = INITIAL_SENTINEL, ping_limit: float = 10.0
) -> AsyncIterator[tuple[Agent, FakeAgent]]:
    """An `Agent` and the fake it talks to, over a socket pair; both links are closed at the end."""
    host_end, guest_end = socket.socketpair()
    accepting = asyncio.create_task(Link.accept(guest_end, sentinel=sentinel, schema=AGENT_SCHEMA))
    host = await Link.connect(host_end, sentinel=sentinel, ping_limit=ping_limit)
    fake = FakeAgent(await accepting, handlers)
    serving = asyncio.create_task(fake.run())
    try:
        yield Agent(host), fake
    finally:
        await host.aclose()
        await fake.link.aclose()
        await serving
