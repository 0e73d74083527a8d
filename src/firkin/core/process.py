"""A process in a container: its streams, its signals, its end."""

from __future__ import annotations

import asyncio
import errno
import signal as signals
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from firkin.core.capture import Captured, capture
from firkin.core.exit import ExitStatus
from firkin.errors import AgentError, ExecError, FirkinTimeoutError
from firkin.types import ProcessId, PtySize, Signal

if TYPE_CHECKING:
    from firkin.core.stdio import Channels
    from firkin.vminitd.agent import Agent
    from firkin.vminitd.stream import Stream

__all__ = ["AsyncProcess", "exec_error"]


class AsyncProcess:
    """A process of a container, running or ended.

    `stdin`, `stdout` and `stderr` are streams where they were asked for as PIPED, else `None`. With a terminal
    `stdin` is the
    terminal, both ways.
    """

    def __init__(
        self, agent: Agent, container: str, id: ProcessId, pid: int, channels: Channels, exit: asyncio.Task[ExitStatus]
    ) -> None:
        self._agent = agent
        self._container = container
        self._channels = channels
        self._exit = exit
        self.id = id
        self.pid = pid

    @property
    def stdin(self) -> Stream | None:
        """What the process reads, if PIPED."""
        return self._channels.piped("stdin")

    @property
    def stdout(self) -> Stream | None:
        """What the process writes, if PIPED."""
        return self._channels.piped("stdout")

    @property
    def stderr(self) -> Stream | None:
        """What the process writes to its standard error, if PIPED."""
        return self._channels.piped("stderr")

    @property
    def streams(self) -> dict[str, Stream]:
        """The streams that there are, by name, also those that are not for the caller to read."""
        return self._channels.streams

    @property
    def status(self) -> ExitStatus | None:
        """How it ended, once that is known; `None` before."""
        return (
            self._exit.result()
            if self._exit.done() and not self._exit.cancelled() and not self._exit.exception()
            else None
        )

    async def wait(self, timeout: float | None = None) -> ExitStatus:
        """Wait until the process has ended and all its inherited output is written. Blocks no other call.

        `timeout` in seconds. Raises `FirkinTimeoutError` at the limit (the process goes on), `VirtualMachineError` if
        the VM ends first.
        """
        try:
            async with asyncio.timeout(timeout):
                status = await asyncio.shield(self._exit)
                await self._channels.drained()
        except TimeoutError as error:
            raise FirkinTimeoutError(
                f"process {self.id} of {self._container} still runs after {timeout:g} s"
            ) from error
        return status

    async def communicate(
        self, input: bytes | None = None, *, limit: int, timeout: float | None = None
    ) -> tuple[Captured, Captured, ExitStatus]:
        """Write `input` to stdin and close it, read stdout and stderr to their ends (at most `limit` bytes of each
        are kept), and wait."""
        async with asyncio.timeout(timeout):
            out, err, _, status = await asyncio.gather(
                capture(self.stdout, limit), capture(self.stderr, limit), self._feed(input), self.wait()
            )
        return out, err, status

    async def _feed(self, input: bytes | None) -> None:
        stdin = self.stdin
        if stdin is None:
            return
        try:
            if input:
                await stdin.write(input)
            await stdin.end()
        except ConnectionError:
            # The process closed its stdin or ended before it had read everything, as in a shell's `yes | head`.
            return

    async def kill(self, signal: Signal | int | str = signals.SIGKILL) -> None:
        """Send `signal`; nothing happens if the process has ended."""
        if self._exit.done():
            return
        try:
            await self._agent.kill_process(self._container, self.id, int(Signal.parse(signal)))
        except AgentError as error:
            if error.errno not in (errno.ESRCH, errno.ENOENT):
                raise

    async def stop(self, signal: Signal | int | str = signals.SIGTERM, grace: float = 10.0) -> ExitStatus:
        """Send `signal`; SIGKILL if the process is still there `grace` seconds later. Returns as soon as it is gone."""
        await self.kill(signal)
        try:
            return await self.wait(grace)
        except FirkinTimeoutError:
            await self.kill(signals.SIGKILL)
            return await self.wait()

    async def resize(self, size: PtySize) -> None:
        """Tell the process's terminal its size."""
        await self._agent.resize_process(self._container, self.id, size.columns, size.rows)

    async def aclose(self) -> None:
        """Let go of the streams; the process itself is not touched."""
        self._exit.cancel()
        await asyncio.gather(self._exit, return_exceptions=True)
        await self._channels.aclose()


def exec_error(error: AgentError, program: str) -> AgentError:
    """The agent's refusal to start a process as the caller should see it: `ExecError` where the program was the
    reason."""
    if error.stage != "exec":
        return error
    why = {
        errno.ENOENT: "no such file in the container",
        errno.EACCES: "not executable",
        errno.ENOEXEC: "not a program for this machine",
    }
    reason = why.get(error.errno, error.message)
    return ExecError(f"can't execute {program!r}: {reason}", stage=error.stage, errno=error.errno)


def exit_status(code: int | None, signal: int | None, oom_killed: bool, exited_at_ns: int) -> ExitStatus:
    """An `ExitStatus` from the agent's fields."""
    return ExitStatus(code, signal, oom_killed, datetime.fromtimestamp(exited_at_ns / 1e9, UTC))
