"""The guest's side of a copy: a container that this process owns, or, by its owner's control socket, another's."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from firkin.errors import AgentError, FirkinError, StateError

if TYPE_CHECKING:
    from firkin.types import ContainerId
    from firkin.vminitd.control import ControlClient
    from firkin.vminitd.link import Link
    from firkin.vminitd.stream import Listener, Stream
    from firkin.vmm.machine import VirtualMachine

__all__ = ["ControlPeer", "CopyPeer", "FileStat", "GuestPeer", "InOptions", "dialled"]

# Seconds until the answer of a copy whose stream the other side has ended.
_ANSWER_LIMIT = 5.0


class FileStat(NamedTuple):
    """What lstat(2) says of a file in the guest, which may lie: `mode` are Linux's bits, `mtime_ns` nanoseconds."""

    mode: int
    size: int
    uid: int
    gid: int
    mtime_ns: int
    nlink: int
    link_target: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symlink."""
        return stat.S_ISLNK(self.mode)

    @classmethod
    def of(cls, reply: Any) -> FileStat:
        """From a `StatReply`."""
        return cls(*(getattr(reply, name) for name in cls._fields))


class InOptions(NamedTuple):
    """How the guest unpacks: `uid` and `gid` for all, unless `preserve_owner`."""

    create_parents: bool = False
    preserve_owner: bool = False
    uid: int = 0
    gid: int = 0


class CopyPeer(Protocol):
    """What a copy asks of the other side. `link` is where the other side opens its streams."""

    @property
    def link(self) -> Link:
        """The link that the streams of copies go over."""

    async def stat(self, path: str, *, follow: bool = False) -> FileStat:
        """Raises `AgentError` (ENOENT and others)."""

    def copy_in(self, directory: str, port: int, options: InOptions) -> Awaitable[object]:
        """Ask for the stream, at `port`, of what will be unpacked in `directory`; the answer is that it was."""

    def copy_out(self, path: str, port: int, *, follow: bool) -> Awaitable[object]:
        """Ask for the stream, at `port`, of `path` as a tar; the answer is that all was sent."""


class GuestPeer:
    """The container of this process's own VM."""

    def __init__(self, vm: VirtualMachine, container: ContainerId) -> None:
        self._vm = vm
        self._container = container

    @property
    def link(self) -> Link:
        """The link that the streams of copies go over."""
        return self._vm.link

    async def stat(self, path: str, *, follow: bool = False) -> FileStat:
        """As `CopyPeer.stat`."""
        return FileStat.of(await self._vm.agent.stat(path, follow=follow, container=self._container))

    def copy_in(self, directory: str, port: int, options: InOptions) -> Awaitable[object]:
        """As `CopyPeer.copy_in`."""
        return self._vm.agent.copy_in(directory, port, container=self._container, **options._asdict())

    def copy_out(self, path: str, port: int, *, follow: bool) -> Awaitable[object]:
        """As `CopyPeer.copy_out`."""
        return self._vm.agent.copy_out(path, port, container=self._container, follow=follow)


class ControlPeer:
    """A container of another process."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    @property
    def link(self) -> Link:
        """The link that the streams of copies go over."""
        return self._client.link

    async def stat(self, path: str, *, follow: bool = False) -> FileStat:
        """As `CopyPeer.stat`."""
        import json

        from firkin.vminitd._generated import control_pb2 as pb

        return FileStat(**json.loads((await self._client.call(pb.StatFile(path=path, follow=follow))).json))

    def copy_in(self, directory: str, port: int, options: InOptions) -> Awaitable[object]:
        """As `CopyPeer.copy_in`."""
        import json

        from firkin.vminitd._generated import control_pb2 as pb

        options_json = json.dumps(options._asdict())
        return self._client.submit(pb.CopyIn(path=directory, port=port, options_json=options_json))

    def copy_out(self, path: str, port: int, *, follow: bool) -> Awaitable[object]:
        """As `CopyPeer.copy_out`."""
        import json

        from firkin.vminitd._generated import control_pb2 as pb

        return self._client.submit(pb.CopyOut(path=path, port=port, options_json=json.dumps({"follow": follow})))


@asynccontextmanager
async def dialled(link: Link, call: Callable[[int], Awaitable[object]]) -> AsyncIterator[Stream]:
    """The stream that the other side opens for the call that `call(port)` makes, whose answer ends the block.

    Where the other side broke the stream off, what its answer says is the error that leaves the block. An error of the
    block's own gives the call up.
    """
    async with link.listen(link.allocate_port()) as listener:
        answer, stream = await _accepted(listener, call)
    try:
        yield stream
        await answer
    except (FirkinError, OSError) as error:
        if stream.over and (reason := await _reason(answer)):
            raise reason from error
        raise
    finally:
        stream.reset()
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)


async def _accepted(
    listener: Listener, call: Callable[[int], Awaitable[object]]
) -> tuple[asyncio.Future[object], Stream]:
    answer = asyncio.ensure_future(call(listener.port))
    accepting = asyncio.ensure_future(listener.accept())
    try:
        await asyncio.wait([answer, accepting], return_when=asyncio.FIRST_COMPLETED)
        if accepting.done():
            return answer, accepting.result()
        await answer
        raise StateError("the guest opened no stream for the copy")
    except BaseException:
        answer.cancel()
        accepting.cancel()
        await asyncio.gather(answer, accepting, return_exceptions=True)
        raise


async def _reason(answer: asyncio.Future[object]) -> AgentError | None:
    await asyncio.wait([answer], timeout=_ANSWER_LIMIT)
    error = answer.exception() if answer.done() and not answer.cancelled() else None
    return error if isinstance(error, AgentError) else None
