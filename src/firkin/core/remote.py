"""A live container of another process of this user, reached through its owner's control socket."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from firkin.core.exit import ExitStatus
from firkin.core.live import LiveContainer
from firkin.core.process import exit_status
from firkin.core.stdio import Channels, StdioSpec
from firkin.errors import LinkError, StateError
from firkin.types import PtySize, Signal, Stdio

if TYPE_CHECKING:
    from collections.abc import Callable

    from firkin.core.copy.peer import CopyPeer
    from firkin.core.detach_keys import DetachKeys
    from firkin.core.exec_config import ExecConfig
    from firkin.core.limits import Limits
    from firkin.core.stats import Stats
    from firkin.network.policy import Policy
    from firkin.vminitd.control import ControlClient
    from firkin.vminitd.rpc import Call

__all__ = ["AttachedProcess", "RemoteContainer", "RemoteProcess"]


class RemoteContainer:
    """A live container that somebody else owns. An async context manager, made by `connect`.

    Every call raises `StateError` where the container has ended meanwhile.
    """

    def __init__(self, client: ControlClient, container: LiveContainer) -> None:
        self._client = client
        self.container = container

    @classmethod
    async def connect(cls, container: LiveContainer) -> Self:
        """Connect to the owner of `container`."""
        from firkin.vminitd.control import ControlClient

        return cls(await ControlClient.connect(container.folder), container)

    async def exec(self, config: ExecConfig) -> RemoteProcess:
        """Start a further process, its streams joined to ours as `config` says (INHERIT, NULL)."""
        from firkin.vminitd._generated import control_pb2 as pb

        channels = Channels(StdioSpec(config.stdin, config.stdout, config.stderr, config.terminal))
        stdin, stdout, stderr = channels.listen(self._client.link)
        call = pb.Exec(config_json=config.to_json(), stdin_port=stdin, stdout_port=stdout, stderr_port=stderr)
        started = await self._connected(call, channels)
        return RemoteProcess(self, started.process, channels)

    async def attach(self, *, stdin: bool, terminal: bool, keys: DetachKeys) -> AttachedProcess:
        """Join the first process: its output from now on is written to ours; with `stdin` ours is typed into it.

        `terminal`: it has one. Waiting for it raises `Detached` once `keys` were typed.
        """
        from firkin.vminitd._generated import control_pb2 as pb

        given = Stdio.INHERIT if stdin else Stdio.NULL
        spec = StdioSpec(given, Stdio.INHERIT, Stdio.INHERIT, terminal)
        channels = Channels(spec, typed=keys.passed if terminal else None)
        ports = channels.listen(self._client.link)
        call = pb.Attach(process="init", stdin_port=ports[0], stdout_port=ports[1], stderr_port=ports[2])
        # Before anything is typed, which may end it: an owner whose container has ended takes no more calls.
        process = AttachedProcess(self, "init", channels)
        await self._connected(call, channels, process.begin_waiting)
        return process

    async def _connected(self, call: Any, channels: Channels, answered: Callable[[], None] | None = None) -> Any:
        """The answer to a call by which the owner opens our `channels`; `answered` comes before what is typed."""
        try:
            answer = await self.call(call)
            if answered is not None:
                answered()
            await channels.connect()
        except BaseException:
            await channels.aclose()
            raise
        return answer

    async def inspect(self) -> dict[str, Any]:
        """What the owner knows of it, as a JSON document."""
        import json

        from firkin.vminitd._generated import control_pb2 as pb

        return dict(json.loads((await self.call(pb.Inspect())).json))

    async def kill(self, signal: Signal) -> None:
        """Send `signal` to the first process."""
        from firkin.vminitd._generated import control_pb2 as pb

        await self.call(pb.Signal(process="init", signal=signal))

    async def stop(self, grace: float) -> ExitStatus:
        """Send the stop signal, SIGKILL `grace` seconds later; how the first process ended."""
        from firkin.vminitd._generated import control_pb2 as pb

        return _status(await self.call(pb.Stop(grace_seconds=grace)))

    async def wait(self) -> ExitStatus:
        """Wait for the end of the first process."""
        from firkin.vminitd._generated import control_pb2 as pb

        return _status(await self.call(pb.Wait(process="init")))

    async def stats(self) -> Stats:
        """What it uses and its VM costs, now. Raises `StateError` while it is paused."""
        import json

        from firkin.core.stats import Stats
        from firkin.vminitd._generated import control_pb2 as pb

        return Stats.from_document(json.loads((await self.call(pb.Stats())).json))

    async def update(self, limits: Limits) -> None:
        """Change its limits."""
        from firkin.vminitd._generated import control_pb2 as pb

        await self.call(pb.Update(limits_json=limits.to_json()))

    async def publish(self, port: str) -> list[dict[str, Any]]:
        """Publish ports on the host; what that became, as `firkin port` lists it."""
        import json

        from firkin.vminitd._generated import control_pb2 as pb

        return list(json.loads((await self.call(pb.PublishPort(publication=port))).json))

    async def unpublish(self, port: str) -> None:
        """Give published ports back."""
        from firkin.vminitd._generated import control_pb2 as pb

        await self.call(pb.UnpublishPort(publication=port))

    async def set_network_policy(self, policy: Policy) -> None:
        """Replace what it may reach."""
        import json

        from firkin.vminitd._generated import control_pb2 as pb

        await self.call(pb.SetPolicy(policy_json=json.dumps(policy.as_document())))

    async def pause(self) -> None:
        """Stop the VM's processors. Raises `StateError` where it is paused already."""
        from firkin.vminitd._generated import control_pb2 as pb

        await self.call(pb.Pause())

    async def unpause(self) -> None:
        """Let the VM run on. Raises `StateError` where it is not paused."""
        from firkin.vminitd._generated import control_pb2 as pb

        await self.call(pb.Unpause())

    async def snapshot(self, name: str, *, stop: bool = False) -> dict[str, Any]:
        """Have the owner save it; the report of `AsyncContainer.snapshot`, as a document."""
        import json

        from firkin.vminitd._generated import control_pb2 as pb

        return dict(json.loads((await self.call(pb.Snapshot(name=name, stop=stop))).json))

    def copy_peer(self) -> CopyPeer:
        """The container as copies (`firkin.core.copy.transfer`) see it."""
        from firkin.core.copy.peer import ControlPeer

        return ControlPeer(self._client)

    async def call(self, message: Any) -> Any:
        """Any call of proto/firkin/control.proto. Raises `StateError`."""
        return await self.answer(self.submit(message))

    def submit(self, message: Any) -> Call[Any]:
        """Send a call, whose answer is awaited by `answer`."""
        return self._client.submit(message)

    async def answer(self, call: Call[Any]) -> Any:
        """The answer. Raises `StateError`."""
        try:
            return await call
        except LinkError as error:
            raise StateError(f"container {self.container.id} ended under the call") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()


class RemoteProcess:
    """A process started by `RemoteContainer.exec`."""

    def __init__(self, container: RemoteContainer, id: str, channels: Channels) -> None:
        self._container = container
        self._channels = channels
        self._end: Call[Any] | None = None
        self.id = id

    def begin_waiting(self) -> None:
        """Ask the owner how it will end; `wait` does so too."""
        from firkin.vminitd._generated import control_pb2 as pb

        if self._end is None:
            self._end = self._container.submit(pb.Wait(process=self.id))

    async def wait(self) -> ExitStatus:
        """Wait until it has ended and its output is written."""
        self.begin_waiting()
        assert self._end is not None
        try:
            status = _status(await self._container.answer(self._end))
            await self._channels.drained()
            return status
        finally:
            await self._channels.aclose()

    async def kill(self, signal: Signal | int | str) -> None:
        """Send it `signal`."""
        from firkin.vminitd._generated import control_pb2 as pb

        await self._container.call(pb.Signal(process=self.id, signal=Signal.parse(signal)))

    async def resize(self, size: PtySize) -> None:
        """Tell its terminal its size."""
        from firkin.vminitd._generated import control_pb2 as pb

        await self._container.call(pb.Resize(process=self.id, columns=size.columns, rows=size.rows))


class AttachedProcess(RemoteProcess):
    """The first process of a container, joined by `RemoteContainer.attach`."""

    async def wait(self) -> ExitStatus:
        """Wait until it has ended and its output is written. Raises `Detached` once the detach keys were typed."""
        ended = asyncio.ensure_future(super().wait())
        left = asyncio.ensure_future(self._channels.left())
        try:
            await asyncio.wait((ended, left), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                left.result()
            return await ended
        finally:
            for task in (ended, left):
                task.cancel()
            await asyncio.gather(ended, left, return_exceptions=True)


def _status(exit: Any) -> ExitStatus:
    signalled = exit.WhichOneof("status") == "signal"
    return exit_status(
        None if signalled else exit.code, exit.signal if signalled else None, exit.oom_killed, exit.exited_at_ns
    )
