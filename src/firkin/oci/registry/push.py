"""Pushing an image: mounts what the registry has elsewhere, uploads the rest, names it last."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from firkin.errors import ImageError, ImageNotFoundError, RegistryError
from firkin.oci.content import ContentStore
from firkin.oci.lease import Lease
from firkin.oci.manifest import Descriptor, Index, parse_document
from firkin.oci.references import Tagged
from firkin.oci.registry._httpx import httpx
from firkin.oci.registry.client import RegistryClient, Repository, refused
from firkin.oci.registry.progress import NoProgress, Progress
from firkin.oci.registry.transport import reason
from firkin.oci.resolve import image_of
from firkin.oci.store import ImageStore
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.reference import Reference

__all__ = ["Pushed", "push"]

_PARALLEL = 4
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where the image is now, by name and by digest."""

    reference: Reference
    digest: Digest


async def push(
    store: ImageStore,
    source: Reference | str,
    destination: Reference | str | None = None,
    *,
    platform: Platform | None = None,
    chunk: int | None = None,
    client: RegistryClient | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Upload the image `source` as `destination` (default: its own name).

    An index goes whole where all of it is here and no `platform` is asked for. Blobs of more than `chunk` bytes go in
    chunks of that size, all others in one request. Raises `ImageNotFoundError`, `RegistryError`, `ImageError`.
    """
    entry = store.find(source)
    target = Reference.parse(destination) if isinstance(destination, str) else destination or entry.reference
    if target is None:
        raise ImageError("the image has no name to push it by", hint="give a destination")
    async with contextlib.AsyncExitStack() as stack:
        if client is None:
            client = await stack.enter_async_context(RegistryClient(limits=store.limits))
        lease = stack.enter_context(Lease(store.content.root))
        top, levels, blobs = _plan(store, entry, platform)
        lease.hold(*(item.digest for item in (*levels, *blobs)))
        repository = await client.repository(target)
        upload = _Upload(store.content, repository, _neighbours(store, target), chunk, progress or NoProgress())
        await upload.all(blobs)
        for manifest in levels:
            content = store.content.read(manifest.digest, store.limits.manifest)
            named = target.tag if manifest is top and target.tag else manifest.digest
            await repository.put_manifest(named, content, manifest.media_type)
    return Pushed(target, top.digest)


def _plan(
    store: ImageStore, entry: Tagged, platform: Platform | None
) -> tuple[Descriptor, list[Descriptor], list[Descriptor]]:
    """The topmost manifest, all manifests with the lower ones first, and all blobs below them."""
    levels: list[Descriptor] = []
    blobs: dict[Digest, Descriptor] = {}

    def walk(target: Descriptor) -> None:
        content = store.content.read(target.digest, store.limits.manifest)
        document = parse_document(content, target.media_type, store.limits)
        if isinstance(document, Index):
            for child in document.manifests:
                walk(child)
        else:
            blobs.update({blob.digest: blob for blob in (document.config, *document.layers)})
            for blob in (document.config, *document.layers):
                store.content.size(blob.digest)
        levels.append(target)

    top = entry.target
    try:
        if platform is not None:
            raise ImageNotFoundError("one platform is asked for")
        walk(top)
    except ImageNotFoundError:
        levels.clear()
        blobs.clear()
        image = image_of(store.content, entry.target, platform, entry.reference, store.limits)
        top = Descriptor(image.media_type, image.digest, store.content.size(image.digest))
        walk(top)
    return top, levels, list(blobs.values())


def _neighbours(store: ImageStore, target: Reference) -> Callable[[Digest], list[str]]:
    """Which other repositories of the same registry are known to have a blob."""
    known: dict[Digest, list[str]] = {}
    for entry in store.images():
        reference = entry.reference
        if reference is None or reference.registry != target.registry or reference.repository == target.repository:
            continue
        with contextlib.suppress(ImageError):
            image = image_of(store.content, entry.target, None, None, store.limits)
            for digest in (image.image_id, *(layer.descriptor.digest for layer in image.layers)):
                known.setdefault(digest, []).append(reference.repository)
    return lambda digest: known.get(digest, [])


class _Upload:
    """The blobs of one push to one repository."""

    def __init__(
        self,
        content: ContentStore,
        repository: Repository,
        neighbours: Callable[[Digest], list[str]],
        chunk: int | None,
        progress: Progress,
    ) -> None:
        self._content = content
        self._repository = repository
        self._neighbours = neighbours
        self._chunk = chunk
        self._progress = progress

    async def all(self, blobs: Iterable[Descriptor]) -> None:
        """Upload `blobs`, some at a time."""
        slots = asyncio.Semaphore(_PARALLEL)

        async def one(blob: Descriptor) -> None:
            async with slots:
                await self._one(blob)

        tasks = [asyncio.create_task(one(blob)) for blob in blobs]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _one(self, blob: Descriptor) -> None:
        if await self._repository.has_blob(blob.digest):
            self._progress.finished(blob, "exists")
            return
        retry, failures = self._repository.transport.retry, 0
        while True:
            location = await self._begin(blob)
            if location is None:
                self._progress.finished(blob, "mounted")
                return
            try:
                await self._transfer(blob, location)
                self._progress.finished(blob, "done")
                return
            except httpx.HTTPError as error:
                failures += 1
                if failures >= retry.attempts:
                    raise RegistryError(f"can't upload {blob.digest}: {reason(error)}", hint="try again") from error
                why = reason(error)
            # A broken upload begins anew, by a session of its own: what the registry kept of the old one is unknown.
            await retry.wait(failures, None, f"the upload of {blob.digest}: {why}")

    async def _begin(self, blob: Descriptor) -> str | None:
        """Open an upload and return its address; None where the blob could be mounted from another repository."""
        for neighbour in self._neighbours(blob.digest)[:3]:
            query = str(httpx.QueryParams({"mount": str(blob.digest), "from": neighbour}))
            async with self._post(f"blobs/uploads/?{query}") as response:
                if response.status_code == 201:
                    return None
                if response.status_code == 202:
                    return self._location(response)
        async with self._post("blobs/uploads/") as response:
            if response.status_code != 202:
                raise await refused(response, f"{self._repository.host} takes no upload to {self._repository.name}")
            return self._location(response)

    @contextlib.asynccontextmanager
    async def _post(self, path: str) -> AsyncIterator[httpx.Response]:
        async with self._repository.send(
            "POST", self._repository.url(path), headers={"content-length": "0"}, push=True
        ) as response:
            yield response

    async def _transfer(self, blob: Descriptor, location: str) -> None:
        self._progress.started(blob, 0)
        offset = 0
        if self._chunk and blob.size > self._chunk:
            while blob.size - offset > self._chunk:
                location = await self._patch(blob, location, offset, self._chunk)
                offset += self._chunk
        separator = "&" if urlsplit(location).query else "?"
        url = f"{location}{separator}{httpx.QueryParams({'digest': str(blob.digest)})}"
        headers = {"content-length": str(blob.size - offset), "content-type": "application/octet-stream"}
        if offset:
            headers["content-range"] = f"{offset}-{blob.size - 1}"
        async with self._repository.send(
            "PUT", url, headers=headers, content=lambda: self._body(blob, offset, blob.size), push=True
        ) as response:
            if response.status_code not in (201, 204):
                raise await refused(response, f"{self._repository.host} refused {blob.digest}")

    async def _patch(self, blob: Descriptor, location: str, offset: int, count: int) -> str:
        headers = {
            "content-length": str(count),
            "content-range": f"{offset}-{offset + count - 1}",
            "content-type": "application/octet-stream",
        }
        async with self._repository.send(
            "PATCH", location, headers=headers, content=lambda: self._body(blob, offset, offset + count), push=True
        ) as response:
            if response.status_code != 202:
                raise await refused(response, f"{self._repository.host} refused a chunk of {blob.digest}")
            return self._location(response)

    async def _body(self, blob: Descriptor, start: int, end: int) -> AsyncIterator[bytes]:
        state = hashlib.new(blob.digest.algorithm) if start == 0 and end == blob.size else None
        with self._content.open(blob.digest) as file:
            file.seek(start)
            while start < end:
                data = await asyncio.to_thread(file.read, min(_CHUNK, end - start)) or b""
                if not data:
                    raise ImageError(f"{blob.digest} is shorter than it should be", hint="get the image again")
                if state is not None:
                    state.update(data)
                start += len(data)
                if state is not None and start == end and state.hexdigest() != blob.digest.hex:
                    raise ImageError(f"{blob.digest} is damaged in the image store", hint="get the image again")
                yield data
                self._progress.advanced(blob, start)

    def _location(self, response: httpx.Response) -> str:
        """The address of the upload. One on another host gets no credentials."""
        location = str(response.headers.get("location", ""))
        if not location:
            raise RegistryError(f"{self._repository.host} opens an upload without a Location")
        found = urljoin(str(response.url), location)
        if urlsplit(found).netloc != self._repository.host:
            raise RegistryError(f"{self._repository.host} wants the upload sent to {urlsplit(found).netloc}")
        # Behind a proxy a registry may not know that it is spoken with by TLS.
        return urlsplit(found)._replace(scheme=response.url.scheme).geturl()
