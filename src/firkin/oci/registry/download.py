"""Fetching one blob into the store: resumed by range, verified, shared by processes, readable while it grows."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from firkin.errors import FirkinError, ImageError, ImageNotFoundError, RegistryError
from firkin.oci.content import ContentStore, Ingest
from firkin.oci.manifest import Descriptor
from firkin.oci.registry._httpx import httpx
from firkin.oci.registry.client import Repository, refused
from firkin.oci.registry.progress import Outcome, Progress
from firkin.oci.registry.transport import reason

__all__ = ["DEFAULT_PACE", "Growing", "GrowingReader", "Pace", "download", "in_thread"]

_BATCH = 1 << 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pace:
    """The slowest transfer that is waited for: `bytes` in every `seconds`."""

    bytes: int = 16 << 10
    seconds: float = 60.0


DEFAULT_PACE = Pace()


class Growing:
    """A blob that is being fetched; `reader` gives any number of threads its bytes as they come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._file: io.FileIO | None = None
        self._available = 0
        self._failed = False
        self.ended = False

    def grew(self, writer: Ingest) -> None:
        """`writer` has all bytes up to its offset."""
        with self._changed:
            if self._file is None:
                # Now, as the file is renamed when the blob is whole.
                self._file = io.FileIO(writer.path)
            self._available = writer.offset
            self._changed.notify_all()

    def finish(self, content: ContentStore, blob: Descriptor) -> None:
        """The blob is in the store, whole and verified."""
        with self._changed:
            if self._file is None:
                self._file = content.open(blob.digest)
            self._available, self.ended = blob.size, True
            self._changed.notify_all()

    def fail(self) -> None:
        """It will not come, or nobody wants it any more."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of the file; readers fail."""
        self.fail()
        with self._changed:
            if self._file is not None:
                self._file.close()

    def reader(self) -> GrowingReader:
        """The blob from its first byte."""
        return GrowingReader(self)

    def read_at(self, position: int, limit: int) -> bytes:
        """Up to `limit` bytes at `position`, waiting for the first; none at the end. Raises `RegistryError`."""
        with self._changed:
            while not self._failed and not self.ended and self._available <= position:
                self._changed.wait()
            if self._failed or self._file is None:
                raise RegistryError("the download of a layer failed")
            most = self._available - position
            return os.pread(self._file.fileno(), min(limit, most), position) if most > 0 else b""


class GrowingReader:
    """Reads a `Growing` blob front to back."""

    def __init__(self, blob: Growing) -> None:
        self._blob = blob
        self._position = 0

    def read(self, limit: int, /) -> bytes:
        """Up to `limit` bytes, none at the end. Raises `RegistryError` where the download failed."""
        data = self._blob.read_at(self._position, limit)
        self._position += len(data)
        return data

    def close(self) -> None:
        """Nothing of its own to let go of."""


async def in_thread(threads: Executor, call: Callable[..., _T], *arguments: Any) -> _T:
    """`call` in one of `threads`: a pull has its own, so that waiting ones can't keep others from working."""
    return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)


async def download(
    content: ContentStore,
    sources: Sequence[Repository],
    blob: Descriptor,
    *,
    threads: Executor,
    progress: Progress,
    growing: Growing | None = None,
    pace: Pace = DEFAULT_PACE,
) -> None:
    """Get `blob` from the first of `sources` that has it. Another process's download of it is waited for.

    Raises `ImageError` where what comes is not what its digest promises, `RegistryError` where it does not come.
    """
    outcome: Outcome = "exists" if content.has(blob.digest) else "waited"
    resumed = True
    while (writer := await in_thread(threads, content.ingest, blob.digest, blob.size)) is not None:
        with writer:
            resumed = bool(await in_thread(threads, writer.resume)) if resumed else False
            if growing is not None and resumed:
                growing.grew(writer)
            await _from_any(sources, blob, _Transfer(writer, blob, threads, progress, growing, pace))
            try:
                await in_thread(threads, writer.commit)
            except ImageError:
                if not resumed:
                    raise
                resumed = False  # What an earlier try had left may be what is wrong: once more, from the first byte.
                continue
        outcome = "done"
        break
    if growing is not None:
        growing.finish(content, blob)
    progress.finished(blob, outcome)


async def _from_any(sources: Sequence[Repository], blob: Descriptor, transfer: _Transfer) -> None:
    for source in sources[:-1]:
        try:
            return await transfer.run(source)
        except (RegistryError, ImageNotFoundError):
            continue  # A mirror need not have everything.
    return await transfer.run(sources[-1])


class _Transfer:
    """One blob on its way from one host after another into one ingest."""

    def __init__(
        self,
        writer: Ingest,
        blob: Descriptor,
        threads: Executor,
        progress: Progress,
        growing: Growing | None,
        pace: Pace,
    ) -> None:
        self._threads = threads
        self._writer = writer
        self._blob = blob
        self._progress = progress
        self._growing = growing
        self._pace = pace

    async def run(self, source: Repository) -> None:
        """Fetch what is missing. A broken connection is taken up again where it broke."""
        failures = 0
        while self._writer.offset < self._blob.size:
            before = self._writer.offset
            try:
                await self._once(source)
                if self._writer.offset == self._blob.size:
                    return
                error = f"{source.host} sent {self._writer.offset} of {self._blob.size} bytes"
                cause: Exception | None = None
            except (httpx.HTTPError, _TooSlowError) as caught:
                error, cause = f"{source.host}: {reason(caught)}", caught
            failures = 1 if self._writer.offset >= before + _BATCH else failures + 1
            if failures >= source.transport.retry.attempts:
                shown = self._blob.digest
                raise RegistryError(f"can't fetch {shown}: {error}", hint="try again; what came is kept") from cause
            await source.transport.retry.wait(failures, None, error)

    async def _once(self, source: Repository) -> None:
        writer, blob = self._writer, self._blob
        headers = {"range": f"bytes={writer.offset}-{blob.size - 1}"} if writer.offset else {}
        async with source.send("GET", source.url(f"blobs/{blob.digest}"), headers=headers) as response:
            if response.status_code == 416 or (response.status_code == 206 and not _continues(response, writer.offset)):
                writer.restart()
                return  # The other side does not know this range: from the start, as another try.
            if response.status_code == 200:
                writer.restart()
            elif response.status_code == 404:
                raise ImageNotFoundError(f"{source.host} has no blob {blob.digest} in {source.name}")
            elif response.status_code != 206:
                raise await refused(response, f"{source.host} refused {blob.digest}")
            self._check_length(response, source)
            self._progress.started(blob, writer.offset)
            await self._receive(response)

    def _check_length(self, response: httpx.Response, source: Repository) -> None:
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._blob.size - self._writer.offset:
            raise RegistryError(f"{source.host} has another size for {self._blob.digest} than its manifest says")

    async def _receive(self, response: httpx.Response) -> None:
        watch = _Watch(self._pace, self._writer.offset)
        batch = bytearray()
        try:
            async for chunk in response.aiter_raw():
                batch += chunk
                watch.check(self._writer.offset + len(batch))
                if len(batch) >= _BATCH:
                    full, batch = batch, bytearray()
                    await self._write(full)
        finally:
            if batch:
                await self._write(batch)  # What came before the connection broke counts.

    async def _write(self, batch: bytearray) -> None:
        await in_thread(self._threads, self._writer.write, memoryview(batch))
        if self._growing is not None:
            self._growing.grew(self._writer)
        self._progress.advanced(self._blob, self._writer.offset)


class _TooSlowError(FirkinError):
    """The transfer goes on, but too slowly to be waited for."""


class _Watch:
    """Looks whether a transfer keeps its pace."""

    def __init__(self, pace: Pace, offset: int) -> None:
        self._pace = pace
        self._offset = offset
        self._since = time.monotonic()

    def check(self, offset: int) -> None:
        now = time.monotonic()
        if now - self._since >= self._pace.seconds:
            if offset - self._offset < self._pace.bytes:
                raise _TooSlowError(f"{offset - self._offset} bytes in {now - self._since:.0f} s")
            self._offset, self._since = offset, now


def _continues(response: httpx.Response, offset: int) -> bool:
    """Whether a partial answer starts where we are (RFC 9110, 14.4)."""
    return str(response.headers.get("content-range", "")).startswith(f"bytes {offset}-")
