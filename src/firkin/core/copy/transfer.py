"""Copying between this host and a container: one stream, a thread for the host's files, memory bounded throughout."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Unpack

from firkin.core.copy.channel import Channel, beside
from firkin.core.copy.options import CopyProgress, HostSource, HostTarget, PutHow
from firkin.core.copy.pack import pack_content, pack_tree
from firkin.core.copy.peer import CopyPeer, InOptions, dialled
from firkin.core.copy.places import GuestPlace, guest_path, guest_place, host_place, means_content, says_folder
from firkin.core.copy.report import COPY_LIMIT, MAX_ENTRIES, CopyReport
from firkin.core.copy.unpack import CopyBounds, unpack, unpack_content
from firkin.errors import FirkinTimeoutError, InvalidInputError
from firkin.types import Size
from firkin.vminitd.relay import copy_fd_to_stream, copy_stream_to_fd
from firkin.vminitd.stream import Stream

__all__ = ["get", "get_archive", "put", "put_archive"]

_PIECE = 256 * 1024


async def put(
    peer: CopyPeer,
    source: HostSource,
    destination: str,
    *,
    mode: int | None = None,
    timeout: float | None = None,
    progress: CopyProgress | None = None,
    **how: Unpack[PutHow],
) -> CopyReport:
    """See `AsyncContainer.put`. Raises `InvalidInputError`."""
    given: dict[str, Any] = dict(how)
    follow = given.pop("follow", False)
    options = InOptions(**given)
    async with _limited("put", timeout):
        if isinstance(source, str | os.PathLike):
            if mode is not None:
                raise InvalidInputError("mode is for content that has none", value=mode, hint="a file keeps its own")
            return await _put_path(peer, os.fspath(source), destination, follow, options, progress)
        parents = options.create_parents
        place = await guest_place(peer, destination, b"", source_is_folder=False, create_parents=parents)
        if not (name := place.name):
            raise InvalidInputError(f"{destination} is a folder", value=destination, hint="give the file's path")
        bits = 0o644 if mode is None else stat.S_IMODE(mode)
        return await _send(peer, place, options, progress, partial(pack_content, source, name, bits))


async def _put_path(
    peer: CopyPeer, source: str, destination: str, follow: bool, options: InOptions, progress: CopyProgress | None
) -> CopyReport:
    try:
        found = await asyncio.to_thread(os.stat, source, follow_symlinks=follow or says_folder(source))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"there is no {source!r} to copy", value=source) from error
    is_folder = stat.S_ISDIR(found.st_mode)
    absolute = os.path.abspath(source)  # noqa: PTH100 - the last part is not to be resolved
    name = None if means_content(source) else os.fsencode(Path(absolute).name) or None
    place = await guest_place(
        peer, destination, name, source_is_folder=is_folder, create_parents=options.create_parents
    )
    return await _send(peer, place, options, progress, partial(pack_tree, source, place.name, follow=follow))


async def _send(
    peer: CopyPeer,
    place: GuestPlace,
    options: InOptions,
    progress: CopyProgress | None,
    pack: Callable[[Callable[[bytes], None]], CopyReport],
) -> CopyReport:
    async with dialled(peer.link, lambda port: peer.copy_in(place.folder, port, options)) as stream:
        channel = Channel()
        report = await beside(channel, _out_of(channel, stream, progress), lambda: pack(channel.put))
        await stream.end()
    return report


async def _out_of(channel: Channel, stream: Stream, progress: CopyProgress | None) -> None:
    total = 0
    while chunks := await channel.receive():
        for chunk in chunks:
            await stream.write(chunk)
            total += len(chunk)
        if progress is not None:
            progress(total)


async def get(
    peer: CopyPeer,
    source: str,
    destination: HostTarget,
    *,
    follow: bool = False,
    preserve_owner: bool = False,
    limit: Size | int | str = COPY_LIMIT,
    max_entries: int = MAX_ENTRIES,
    timeout: float | None = None,
    progress: CopyProgress | None = None,
) -> CopyReport:
    """See `AsyncContainer.get`."""
    bounds = CopyBounds(Size.parse(limit), max_entries)

    def work(channel: Channel) -> CopyReport:
        if place is None:
            return unpack_content(channel, destination, bounds)  # type: ignore[arg-type]
        return unpack(channel, place, bounds, preserve_owner=preserve_owner)

    async with _limited("get", timeout):
        place = host_place(destination, source) if isinstance(destination, str | os.PathLike) else None
        async with dialled(peer.link, lambda port: _ask(peer, source, port, follow)) as stream:
            channel = Channel()
            return await beside(channel, _into(channel, stream, progress), lambda: work(channel))


def _ask(peer: CopyPeer, source: str, port: int, follow: bool) -> Awaitable[object]:
    path = guest_path(source)
    # As in any path, what stands before a / is followed, and must be a folder.
    return peer.copy_out(path + "/" if says_folder(source) and path != "/" else path, port, follow=follow)


async def _into(channel: Channel, stream: Stream, progress: CopyProgress | None) -> None:
    total = 0
    while data := await stream.read(_PIECE):
        await channel.send(data)
        total += len(data)
        if progress is not None:
            progress(total)
    channel.end()


async def put_archive(
    peer: CopyPeer,
    archive: BinaryIO | int,
    directory: str,
    *,
    preserve_owner: bool = False,
    timeout: float | None = None,
) -> None:
    """See `AsyncContainer.put_archive`."""

    def read(channel: Channel) -> None:
        assert not isinstance(archive, int)
        while data := archive.read(_PIECE):
            channel.put(data)

    path, options = guest_path(directory), InOptions(preserve_owner=preserve_owner)
    async with _limited("put", timeout), dialled(peer.link, lambda port: peer.copy_in(path, port, options)) as stream:
        if isinstance(archive, int):
            await copy_fd_to_stream(archive, stream)
            return
        channel = Channel()
        await beside(channel, _out_of(channel, stream, None), lambda: read(channel))
        await stream.end()


async def get_archive(
    peer: CopyPeer, source: str, archive: BinaryIO | int, *, follow: bool = False, timeout: float | None = None
) -> None:
    """See `AsyncContainer.get_archive`."""

    def write(channel: Channel) -> None:
        assert not isinstance(archive, int)
        while data := channel.read(_PIECE):
            archive.write(data)

    async with _limited("get", timeout), dialled(peer.link, lambda port: _ask(peer, source, port, follow)) as stream:
        if isinstance(archive, int):
            await copy_stream_to_fd(stream, archive)
            return
        channel = Channel()
        await beside(channel, _into(channel, stream, None), lambda: write(channel))


@asynccontextmanager
async def _limited(what: str, timeout: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        if isinstance(error, FirkinTimeoutError):
            raise
        raise FirkinTimeoutError(f"{what}: not done within {timeout:g} s") from error
