"""Several readers of one process's output: its owner's, and whoever is attached; and several who type into it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from firkin.errors import LinkError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from firkin.vminitd.stream import Stream

__all__ = ["Attachment", "Follower"]

# Bytes that a slow reader may be behind; then it is let go, so that neither the process nor the owner waits for it.
_MOST_BEHIND = 4 << 20
# How long one that is not behind may take for the last of it.
_LAST_LIMIT = 2.0


class Follower:
    """Sends on to `sink` what others read from `source`, from now to its end; nobody waits for it."""

    def __init__(self, source: Stream, sink: Stream) -> None:
        self._source = source
        self._sink = sink
        self._behind = 0
        self._chunks: deque[bytes] = deque()
        self._more = asyncio.Event()
        source.followers.append(self._see)
        self._task = asyncio.create_task(self._send())

    def _see(self, data: bytes) -> None:
        self._chunks.append(data)
        self._behind += len(data)
        if self._behind > _MOST_BEHIND:
            self.close()
        self._more.set()

    async def _send(self) -> None:
        with contextlib.suppress(LinkError):
            while True:
                while self._chunks:
                    data = self._chunks.popleft()
                    self._behind -= len(data)
                    if not data:
                        await self._sink.end()
                        return
                    await self._sink.write(data)
                self._more.clear()
                await self._more.wait()

    async def finish(self) -> None:
        """Wait until the source's reader has met its end and the rest is sent, at most 2 s, and let go."""
        await asyncio.wait({self._task}, timeout=_LAST_LIMIT)
        self.close()

    def close(self) -> None:
        """Let go of both streams. Safe to call again."""
        if self._see in self._source.followers:
            self._source.followers.remove(self._see)
        self._task.cancel()
        self._sink.reset()


class Attachment:
    """A caller's streams, joined to those of a process that its owner reads already.

    `outputs` are pairs of the process's stream and the caller's; what comes from `typed` goes to `stdin`, whose end is
    the process's alone: a caller that leaves does not close it.
    """

    def __init__(self, outputs: list[tuple[Stream, Stream]], typed: Stream | None, stdin: Stream | None) -> None:
        self._followers = [Follower(source, sink) for source, sink in outputs]
        self._typing = asyncio.create_task(_type(typed, stdin)) if typed and stdin else None

    @classmethod
    def join(cls, process: Mapping[str, Stream], caller: Mapping[str, Stream]) -> Attachment:
        """Of streams by name. A process with a terminal has `stdin` alone, which carries both directions."""
        outputs = [(process[name], caller[name]) for name in ("stdout", "stderr") if name in process and name in caller]
        stdin = process.get("stdin")
        if stdin and "stdin" in caller and not outputs:
            outputs = [(stdin, caller["stdin"])]
        return cls(outputs, caller.get("stdin"), stdin)

    async def finish(self) -> None:
        """The process has ended: what it wrote last goes to the caller."""
        if self._typing:
            self._typing.cancel()
        await asyncio.gather(*(follower.finish() for follower in self._followers))

    def close(self) -> None:
        """The caller has gone."""
        if self._typing:
            self._typing.cancel()
        for follower in self._followers:
            follower.close()


async def _type(source: Stream, sink: Stream) -> None:
    # The caller leaves, or the process's input was closed: the other goes on.
    with contextlib.suppress(LinkError, StateError):
        while data := await source.read():
            await sink.write(data)
