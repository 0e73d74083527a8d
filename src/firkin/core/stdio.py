"""Standard streams of a process in the guest: the host listens, the guest dials, one port a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from firkin.quiet import quiet
from firkin.types import Stdio
from firkin.vminitd.relay import copy_fd_to_stream, copy_stream_to_fd

if TYPE_CHECKING:
    from firkin.vminitd.link import Link
    from firkin.vminitd.stream import Listener, Stream

__all__ = ["Channels", "StdioSpec"]

# The guest dials before it answers CreateProcess, so an accept after the answer waits for nothing but the loop.
_ACCEPT_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class StdioSpec:
    """What each standard stream of a process is joined to. With a terminal, `stdin` carries both directions."""

    stdin: Stdio = Stdio.NULL
    stdout: Stdio = Stdio.NULL
    stderr: Stdio = Stdio.NULL
    terminal: bool = False


@dataclass(slots=True)
class _End:
    name: str
    mode: Stdio
    listener: Listener | None = None
    stream: Stream | None = None

    @property
    def port(self) -> int:
        return self.listener.port if self.listener else 0


@dataclass(slots=True)
class Channels:
    """The host's ends of one process's standard streams.

    `listen` before the call that creates the process, `connect` after its answer, `drained` after its exit, `aclose`
    always. What an inherited standard input brings goes through `typed`.
    """

    spec: StdioSpec
    fds: tuple[int, int, int] = (0, 1, 2)
    typed: Callable[[bytes], bytes] | None = None
    _ends: list[_End] = field(default_factory=list)
    _input: list[asyncio.Task[object]] = field(default_factory=list)
    _output: list[asyncio.Task[object]] = field(default_factory=list)

    def listen(self, link: Link) -> tuple[int, int, int]:
        """Open a listener for each stream that is not NULL; the three ports, 0 for NULL."""
        spec = self.spec
        if spec.terminal:
            modes = [
                ("stdin", spec.stdin if spec.stdin is not Stdio.NULL else spec.stdout),
                ("stdout", Stdio.NULL),
                ("stderr", Stdio.NULL),
            ]
        else:
            modes = [("stdin", spec.stdin), ("stdout", spec.stdout), ("stderr", spec.stderr)]
        for name, mode in modes:
            listener = None if mode is Stdio.NULL else link.listen(link.allocate_port())
            self._ends.append(_End(name, mode, listener))
        stdin, stdout, stderr = (end.port for end in self._ends)
        return stdin, stdout, stderr

    async def connect(self) -> None:
        """Take the streams that the guest has dialled, and start the relays of those inherited."""
        for end in self._ends:
            if end.listener is not None:
                async with asyncio.timeout(_ACCEPT_LIMIT):
                    end.stream = await end.listener.accept()
                end.listener.close()
        for end in self._ends:
            if end.stream is not None and end.mode is Stdio.INHERIT:
                self._inherit(end, end.stream)

    def _inherit(self, end: _End, stream: Stream) -> None:
        stdin, stdout, stderr = self.fds
        if end.name == "stdin" and self.spec.stdin is Stdio.INHERIT:
            self._input.append(_relay(copy_fd_to_stream(stdin, stream, self.typed)))
        if end.name != "stdin" or self.spec.terminal:
            self._output.append(_relay(copy_stream_to_fd(stream, stderr if end.name == "stderr" else stdout)))

    def piped(self, name: str) -> Stream | None:
        """The stream of a PIPED end (`stdin`, `stdout`, `stderr`), or `None`."""
        for end in self._ends:
            if end.name == name and end.mode is Stdio.PIPED:
                return end.stream
        return None

    @property
    def streams(self) -> dict[str, Stream]:
        """All that are connected, by name, whoever reads them."""
        return {end.name: end.stream for end in self._ends if end.stream is not None}

    async def left(self) -> None:
        """Raise what `typed` raises; never return."""
        for task in self._input:
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
        await asyncio.Event().wait()

    async def drained(self) -> None:
        """Wait until all inherited output has been written; the relay of stdin is stopped, it has no reader any
        more."""
        for task in self._input:
            task.cancel()
        await asyncio.gather(*self._input, *self._output, return_exceptions=True)

    async def aclose(self) -> None:
        """Let go of everything, whatever state it is in."""
        for task in self._output:
            task.cancel()
        await self.drained()
        for end in self._ends:
            if end.listener is not None:
                end.listener.close()
            if end.stream is not None:
                end.stream.reset()


def _relay(work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    # That the VM has gone is what the process's own wait says.
    return quiet(asyncio.create_task(work))
