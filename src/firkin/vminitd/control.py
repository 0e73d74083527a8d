"""The control socket: how other processes of the same user reach the owner of a VM (proto/firkin/control.proto).

`control.sock` in the VM's folder speaks the guest link's framing, the owner in the guest's role. Each side may open
streams: calls go to the owner's port 1024, stdio comes on streams that the owner opens to ports of the caller's choice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from firkin import faults
from firkin.errors import FirkinError, LinkError, StateError
from firkin.vminitd.agent import deadline_ms
from firkin.vminitd.control_errors import decode_error, encode_error
from firkin.vminitd.link import Link
from firkin.vminitd.oneof import field_of, put
from firkin.vminitd.rpc import Call, Caller, serve

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["SOCKET_NAME", "ControlClient", "ControlHandler", "ControlServer"]

SOCKET_NAME: Final = "control.sock"
_MAX_CONNECTIONS: Final = 128
# Requests half received at a time, all clients together; each is at most 1 MiB.
_MAX_READING: Final = 32
_HELLO_LIMIT: Final = 5.0
_UCRED: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))

_BOUND = faults.declare("control.bound", "the control socket exists, nobody answers on it")
_log = logging.getLogger(__name__)

# Takes the call's message and the caller's link (to open stdio streams on), gives a message of `Reply`; None: Done.
ControlHandler: TypeAlias = Callable[[Any, Link], Awaitable["Message | None"]]


class ControlServer:
    """Answers calls on `folder/control.sock` by `handlers`, whose keys are the fields of `Request.call` ("exec", …).

    `async with ControlServer(folder, handlers):` serves for as long as the block runs. A handler raises `FirkinError`
    to answer with it. Only processes of this user, or root's, are answered. A caller that gives up, or goes away,
    cancels its handlers.
    """

    def __init__(self, folder: Path, handlers: Mapping[str, ControlHandler]) -> None:
        self._folder = folder
        self._handlers = handlers
        self._reading = asyncio.Semaphore(_MAX_READING)
        self._clients: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._listening: socket.socket | None = None

    async def __aenter__(self) -> Self:
        self._listening = _bind(self._folder)
        faults.point(_BOUND)
        self._accepting = asyncio.create_task(self._accept(self._listening))
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(FileNotFoundError):
            (self._folder / SOCKET_NAME).unlink()
        tasks = [task for task in (self._accepting, *self._clients) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A task that was cancelled before its first step closes nothing.
        if self._listening is not None:
            self._listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listening)
            if len(self._clients) >= _MAX_CONNECTIONS or not _is_ours(sock):
                sock.close()
                continue
            task = asyncio.create_task(self._serve(sock))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)

    async def _serve(self, sock: socket.socket) -> None:
        from firkin.vminitd._generated.schema import CONTROL_SCHEMA

        try:
            link = await Link.accept(sock, schema=CONTROL_SCHEMA, timeout=_HELLO_LIMIT)
        except LinkError as error:
            _log.debug("a client of the control socket failed: %s", error)
            return

        async def answer(request: bytes) -> bytes:
            return (await self._answer(request, link)).SerializeToString()

        try:
            await serve(link, answer, reading=self._reading)
        finally:
            _log.debug("a client of the control socket left: %s", link.error)
            await link.aclose()

    async def _answer(self, data: bytes, link: Link) -> Message:
        from google.protobuf.message import DecodeError

        from firkin.vminitd._generated import control_pb2 as pb

        reply = pb.Reply()
        try:
            request = pb.Request.FromString(data)
            name = request.WhichOneof("call")
            if name is None or name not in self._handlers:
                raise StateError(f"the owner of this VM does not answer {name or 'this call'}")
            async with asyncio.timeout(request.deadline_ms / 1000 or None):
                result = await self._handlers[name](getattr(request, name), link)
            return put(reply, "result", pb.Done() if result is None else result)
        except FirkinError as error:
            reply.error.CopyFrom(encode_error(error))
        except TimeoutError:
            reply.error.CopyFrom(pb.Error(kind="FirkinTimeoutError", message="not done within its limit"))
        except DecodeError:
            reply.error.CopyFrom(pb.Error(kind="InvalidInputError", message="a malformed request"))
        except Exception as error:  # noqa: BLE001 - logged, and answered
            # The caller must not hang, nor the owner end, because of one call; its trace is for the owner's log.
            _log.exception("a call on the control socket failed")
            reply.error.CopyFrom(pb.Error(kind="FirkinError", message=f"internal error: {error!r}"))
        return reply


class ControlClient:
    """Calls the owner of the VM in `folder`, over its control socket. `link` is for the stdio streams that it opens."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._caller = Caller(link)

    @classmethod
    async def connect(cls, folder: Path, *, timeout: float = _HELLO_LIMIT) -> ControlClient:
        """Connect to `folder/control.sock`. Raises `StateError` where no owner listens, `LinkError` where it fails."""
        from firkin.vminitd._generated.schema import CONTROL_SCHEMA

        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            async with asyncio.timeout(timeout):
                while not _connected(sock, folder):  # noqa: ASYNC110 - there is nothing to wait on
                    await asyncio.sleep(0.01)
        except OSError as error:
            sock.close()
            raise StateError(f"the owner of {folder.name} does not answer: {error.strerror or 'timed out'}") from error
        except BaseException:
            sock.close()
            raise
        return cls(await Link.connect(sock, schema=CONTROL_SCHEMA, timeout=timeout))

    def submit(self, call: Message, *, timeout: float | None = None) -> Call[Any]:
        """Send `call` (one of the messages in `Request.call`) and return the answer to come: a message of `Reply`.

        Awaiting raises the owner's error as the class of `firkin.errors` it was, or `FirkinTimeoutError`, `LinkError`.
        """
        from firkin.vminitd._generated import control_pb2 as pb

        name = field_of(pb.Request, "call", type(call)).replace("_", " ")
        request = put(pb.Request(deadline_ms=deadline_ms(timeout)), "call", call)
        return self._caller.submit(name, request.SerializeToString(), _decode, timeout)

    async def call(self, call: Message, *, timeout: float | None = None) -> Any:
        """Send `call` and wait for its answer."""
        return await self.submit(call, timeout=timeout)

    async def aclose(self) -> None:
        """Close the connection; what was called and not answered is given up."""
        await self.link.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _decode(data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    from firkin.vminitd._generated import control_pb2 as pb

    try:
        reply = pb.Reply.FromString(data)
    except DecodeError as error:
        raise LinkError("the owner's answer is malformed", outcome_unknown=True) from error
    kind = reply.WhichOneof("result")
    if kind is None:
        raise LinkError("the owner's answer is empty", outcome_unknown=True)
    if kind == "error":
        raise decode_error(reply.error)
    return getattr(reply, kind)


def _at(folder: Path, use: Callable[[str], Any]) -> Any:
    """Call `use` with a path of the control socket that fits `sun_path` (108 bytes), however long the folder's is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return use(f"/proc/self/fd/{descriptor}/{SOCKET_NAME}")
    finally:
        os.close(descriptor)


def _connected(sock: socket.socket, folder: Path) -> bool:
    """Try to connect; false where the owner's queue is full: EAGAIN, which poll(2) does not wait for (connect(2))."""
    try:
        _at(folder, sock.connect)
    except BlockingIOError:
        return False
    return True


def _bind(folder: Path) -> socket.socket:
    """The listening socket. One that a dead owner left is replaced: who calls this holds the folder's lock."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            (folder / SOCKET_NAME).unlink()
        _at(folder, listening.bind)
        (folder / SOCKET_NAME).chmod(0o600)
        listening.listen(_MAX_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise StateError(f"no control socket in {folder}: {error.strerror}") from error
    return listening


def _is_ours(sock: socket.socket) -> bool:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return _UCRED.unpack(raw)[1] in (os.geteuid(), 0)
