"""Copies over a link whose other side is a test: hostile, slow, dead or gone."""

from __future__ import annotations

import asyncio
import errno
import io
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from firkin.core.copy.peer import FileStat, InOptions
from firkin.core.copy.transfer import get, get_archive, put, put_archive
from firkin.errors import AgentError, FirkinError, FirkinTimeoutError, InvalidInputError, LinkError
from firkin.vminitd.link import ANY_SCHEMA, Link
from firkin.vminitd.stream import Stream
from tests.core.copy.test_unpack import archive, folder, member, names

MIB = 1 << 20
Work = Callable[[Stream], Awaitable[object]]


class Guest:
    """A peer whose side of each stream is `work`; the call is answered when that returns."""

    def __init__(self, link: Link, theirs: Link) -> None:
        self.link, self.theirs = link, theirs
        self.work: Work = self.silent
        self.ended = asyncio.Event()

    async def silent(self, stream: Stream) -> None:
        await asyncio.Event().wait()

    async def stat(self, path: str, *, follow: bool = False) -> FileStat:
        if path == "/t/x":
            raise AgentError("nothing there", stage="stat", errno=errno.ENOENT)
        return FileStat(0o40755, -5, 0, 0, 0, 0)

    async def _serve(self, port: int) -> None:
        try:
            async with await self.theirs.open(port) as stream:
                await self.work(stream)
        finally:
            self.ended.set()

    def copy_in(self, directory: str, port: int, options: InOptions) -> Awaitable[object]:
        return self._serve(port)

    def copy_out(self, path: str, port: int, *, follow: bool) -> Awaitable[object]:
        return self._serve(port)


@pytest_asyncio.fixture
async def guest() -> AsyncIterator[Guest]:
    ours, theirs = socket.socketpair()
    link = Link.begin(ours, schema=ANY_SCHEMA)
    accepted = await Link.accept(theirs)
    await link.handshake()
    yield Guest(link, accepted)
    await link.aclose()
    await accepted.aclose()


def copying() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "firkin-copy"]


async def settled(tmp_path: Path) -> None:
    """Neither thread nor file is left."""
    async with asyncio.timeout(5):
        while copying():  # noqa: ASYNC110 - a thread's end has no event
            await asyncio.sleep(0.01)
    assert names(tmp_path) == []


async def test_a_copy_that_is_cancelled_leaves_nothing(guest: Guest, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def half(stream: Stream) -> None:
        await stream.write(archive(folder("t"), member("t/a", bytes(2 * MIB)))[:MIB])
        begun.set()
        await guest.silent(stream)

    guest.work = half
    copy = asyncio.create_task(get(guest, "/t", tmp_path / "new"))
    await begun.wait()
    copy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copy
    await guest.ended.wait()
    await settled(tmp_path)


async def test_a_guest_that_says_nothing_is_given_up(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(FirkinTimeoutError, match="get: not done within"):
        await get(guest, "/t", tmp_path / "new", timeout=0.2)
    await guest.ended.wait()
    await settled(tmp_path)


async def test_the_guests_reason_is_what_is_raised(guest: Guest, tmp_path: Path) -> None:
    async def fail(stream: Stream) -> None:
        await stream.write(archive(folder("t"))[:512])
        raise AgentError("copy out: t/x: Input/output error", stage="copy", errno=5)

    guest.work = fail
    with pytest.raises(AgentError, match="Input/output"):
        await get(guest, "/t", tmp_path / "new")
    await settled(tmp_path)
    (tmp_path / "src").write_bytes(bytes(8 * MIB))
    with pytest.raises(AgentError, match="Input/output"):
        await put(guest, tmp_path / "src", "/t")


async def test_a_link_that_dies_is_the_reason(guest: Guest, tmp_path: Path) -> None:
    async def die(stream: Stream) -> None:
        await stream.write(archive(folder("t"), member("t/a", bytes(MIB)))[:4096])
        guest.link.abort(LinkError("the VM is gone"))

    guest.work = die
    with pytest.raises(LinkError, match="the VM is gone"):
        await get(guest, "/t", tmp_path / "new")
    await settled(tmp_path)


async def test_a_hostile_archive_ends_the_call(guest: Guest, tmp_path: Path) -> None:
    async def endless(stream: Stream) -> None:
        await stream.write(archive(folder("t"), member("t/../../x", b"x")))
        while True:
            await stream.write(bytes(MIB))

    guest.work = endless
    with pytest.raises(FirkinError, match="leads out"):
        await get(guest, "/t", tmp_path / "new")
    await guest.ended.wait()
    await settled(tmp_path)


async def test_a_reader_that_stands_still_stops_only_its_own_copy(guest: Guest, tmp_path: Path) -> None:
    class Counted(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            Counted.count += len(data)
            return data

    copy = asyncio.create_task(put(guest, Counted(bytes(64 * MIB)), "/t/x"))
    async with asyncio.timeout(10):
        while Counted.count < MIB:  # noqa: ASYNC110 - a thread reads
            await asyncio.sleep(0.01)
        listener = guest.theirs.listen(7)
        other = await guest.link.open(7)
        await other.write(b"goes on")
        assert await (await listener.accept()).read() == b"goes on"
    # What was read is no more than the queue and the windows hold.
    assert Counted.count <= 4 * MIB
    copy.cancel()
    await asyncio.gather(copy, return_exceptions=True)
    await settled(tmp_path)


async def test_a_file_to_write_to_that_fails(guest: Guest, tmp_path: Path) -> None:
    async def send(stream: Stream) -> None:
        await stream.write(archive(member("t", b"x" * MIB)))

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    guest.work = send
    with pytest.raises(OSError, match="No space"):
        await get_archive(guest, "/t", Full())
    taken = io.BytesIO()
    await get(guest, "/t", taken)
    assert taken.getvalue() == b"x" * MIB
    await settled(tmp_path)


async def test_an_archive_goes_both_ways_as_it_is(guest: Guest) -> None:
    sent = archive(folder("t"), member("t/a", bytes(MIB)))
    received = bytearray()

    async def take(stream: Stream) -> None:
        while data := await stream.read(1 << 16):
            received.extend(data)

    async def give(stream: Stream) -> None:
        await stream.write(sent)

    guest.work = take
    await put_archive(guest, io.BytesIO(sent), "/t")
    assert received == sent
    guest.work = give
    got = io.BytesIO()
    await get_archive(guest, "/t", got)
    assert got.getvalue() == sent


async def test_content_needs_a_name_and_a_file_keeps_its_mode(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="give the file's path"):
        await put(guest, b"content", "/t/")
    with pytest.raises(InvalidInputError, match="a file keeps its own"):
        await put(guest, tmp_path / "file", "/t", mode=0o600)
    for wrong in (f"{tmp_path}/file/", f"{tmp_path}/none", "a\0b"):
        with pytest.raises(InvalidInputError, match="to copy"):
            await put(guest, wrong, "/t")


async def test_progress_is_told_of_both_ways(guest: Guest, tmp_path: Path) -> None:
    told: list[int] = []

    async def take(stream: Stream) -> None:
        while await stream.read(1 << 16):
            pass

    guest.work = take
    await put(guest, bytes(MIB), "/t/x", progress=told.append)
    assert told == sorted(told)
    assert told[-1] > MIB
    guest.work = lambda stream: stream.write(archive(folder("t"), member("t/a", bytes(MIB))))
    told.clear()
    await get(guest, "/t", tmp_path / "new", progress=told.append)
    assert told[-1] > MIB
