"""What the owner of a container does for other processes of its user: the handlers of the control socket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from firkin.core.copy.serve import copy_handlers
from firkin.core.exec_config import ExecConfig
from firkin.core.exit import ExitStatus
from firkin.core.follow import Attachment
from firkin.core.network_calls import network_handlers
from firkin.errors import LinkError, NotFoundError, StateError
from firkin.types import Stdio

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from firkin.core.container import AsyncContainer
    from firkin.core.process import AsyncProcess
    from firkin.vminitd.control import ControlHandler
    from firkin.vminitd.link import Link
    from firkin.vminitd.stream import Stream

__all__ = ["Owner"]

# A caller that does not take its answer keeps the container's end waiting for no longer than this.
_LAST_WORDS_LIMIT = 2.0


class Owner:
    """The handlers for one container. `proto/firkin/control.proto` says what each call means.

    An async context manager, to be left before the control server is: whoever waits for the first process learns how
    it ended.
    """

    def __init__(self, container: AsyncContainer) -> None:
        self._container = container
        self._pumps: dict[str, list[asyncio.Task[None]]] = {}
        # The answers to those who wait for the end of the first process.
        self._last_words: set[asyncio.Task[Any]] = set()
        self._attached: dict[Link, Attachment] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._last_words and self._container.process.status is not None:
            await asyncio.wait(self._last_words, timeout=_LAST_WORDS_LIMIT)

    def handlers(self) -> dict[str, ControlHandler]:
        """By the name of their field in `Request.call`."""
        return {
            "inspect": self._inspect,
            "exec": self._exec,
            "attach": self._attach,
            "wait": self._wait,
            "signal": self._signal,
            "resize": self._resize,
            "close_stdin": self._close_stdin,
            "stop": self._stop,
            "stats": self._stats,
            "update": self._update,
            "pause": self._pause,
            "unpause": self._unpause,
            "snapshot": self._snapshot,
            **network_handlers(self._container),
            **copy_handlers(self._container),
        }

    async def _inspect(self, call: Any, link: Link) -> Message:
        from firkin.vminitd._generated import control_pb2 as pb

        return pb.Document(json=json.dumps(self._container.describe()))

    async def _exec(self, call: Any, link: Link) -> Message:
        from firkin.vminitd._generated import control_pb2 as pb

        config = ExecConfig.from_json(call.config_json)
        ports = {"stdin": call.stdin_port, "stdout": call.stdout_port, "stderr": call.stderr_port}
        stdin, stdout, stderr = (Stdio.PIPED if port else Stdio.NULL for port in ports.values())
        process = await self._container.exec_config(replace(config, stdin=stdin, stdout=stdout, stderr=stderr))
        streams = {name: await link.open(port) for name, port in ports.items() if port}
        self._pumps[process.id] = _join(process, streams)
        return pb.Started(process=process.id, pid=process.pid)

    async def _attach(self, call: Any, link: Link) -> Message:
        from firkin.vminitd._generated import control_pb2 as pb

        process = self._find(call.process)
        ports = {"stdin": call.stdin_port, "stdout": call.stdout_port, "stderr": call.stderr_port}
        if link in self._attached:
            raise StateError("this connection is attached already")
        streams = {name: await link.open(port) for name, port in ports.items() if port}
        attachment = self._attached[link] = Attachment.join(process.streams, streams)
        leaving = asyncio.create_task(link.wait_closed())

        def left(_: object) -> None:
            del self._attached[link]
            attachment.close()

        leaving.add_done_callback(left)
        return pb.Started(process=process.id, pid=process.pid)

    async def _wait(self, call: Any, link: Link) -> Message:
        process = self._find(call.process)
        if process is self._container.process:
            self._answer_before_the_end()
        status = await process.wait()
        if attachment := self._attached.get(link):
            await attachment.finish()
        if pumps := self._pumps.pop(process.id, None):
            # All output is with the caller before it learns that the process ended; its stdin has no reader any more.
            await asyncio.gather(*pumps[1:], return_exceptions=True)
            pumps[0].cancel()
            await self._container.forget(process)
        return _exit(status)

    async def _signal(self, call: Any, link: Link) -> None:
        process = self._find(call.process)
        if process is self._container.process:
            await self._container.kill(call.signal)
        else:
            await process.kill(call.signal)

    async def _resize(self, call: Any, link: Link) -> None:
        from firkin.types import PtySize

        await self._find(call.process).resize(PtySize(call.columns, call.rows))

    async def _close_stdin(self, call: Any, link: Link) -> None:
        stdin = self._find(call.process).stdin
        if stdin is not None:
            await stdin.end()

    async def _stop(self, call: Any, link: Link) -> Message:
        self._answer_before_the_end()
        return _exit(await self._container.stop(call.grace_seconds))

    async def _stats(self, call: Any, link: Link) -> Message:
        from firkin.vminitd._generated import control_pb2 as pb

        return pb.Document(json=json.dumps((await self._container.stats()).as_document()))

    async def _update(self, call: Any, link: Link) -> None:
        from firkin.core.limits import Limits

        await self._container.set_limits(Limits.from_json(call.limits_json))

    async def _pause(self, call: Any, link: Link) -> None:
        await self._container.pause()

    async def _unpause(self, call: Any, link: Link) -> None:
        await self._container.resume()

    async def _snapshot(self, call: Any, link: Link) -> Message:
        from firkin.vminitd._generated import control_pb2 as pb

        self._answer_before_the_end()
        report = await self._container.snapshot(call.name, stop=call.stop)
        return pb.Document(json=json.dumps(report.as_document()))

    def _answer_before_the_end(self) -> None:
        """The task that serves this call is done once its answer is with the link."""
        if task := asyncio.current_task():
            self._last_words.add(task)
            task.add_done_callback(self._last_words.discard)

    def _find(self, id: str) -> AsyncProcess:
        for process in self._container.processes:
            if process.id == (id or "init"):
                return process
        raise NotFoundError(f"container {self._container.id} has no process {id!r}")


def _join(process: AsyncProcess, streams: dict[str, Stream]) -> list[asyncio.Task[None]]:
    """Tasks that carry bytes between the caller's streams and the guest's: the first carries stdin, the others
    output."""

    async def nothing() -> None:
        return

    pairs: list[tuple[Stream, Stream]] = []
    stdin = None
    if (caller := streams.get("stdin")) and process.stdin:
        stdin = _pump(caller, process.stdin)
        if process.stdout is None and process.stderr is None:
            # A terminal: one stream, both ways.
            pairs.append((process.stdin, caller))
    for name, source in (("stdout", process.stdout), ("stderr", process.stderr)):
        if source is not None:
            pairs.append((source, streams[name]))
    return [
        asyncio.create_task(work) for work in (stdin or nothing(), *(_pump(source, sink) for source, sink in pairs))
    ]


async def _pump(source: Stream, sink: Stream) -> None:
    try:
        while data := await source.read():
            await sink.write(data)
        await sink.end()
    except LinkError:
        # One side has gone: the other is told so.
        source.close()
        sink.close()


def _exit(status: ExitStatus) -> Message:
    from firkin.vminitd._generated import control_pb2 as pb

    exit = pb.Exit(oom_killed=status.oom_killed, exited_at_ns=int(status.exited_at.timestamp() * 1e9))
    if status.signal is not None:
        exit.signal = status.signal
    else:
        exit.code = status.code or 0
    return exit
