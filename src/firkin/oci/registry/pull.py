"""Pulling an image: what its manifests name is fetched in parallel, and converted while it comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from firkin import faults
from firkin.errors import FirkinError, ImageError, ImageNotFoundError, RegistryError
from firkin.oci.ensure import Pulled
from firkin.oci.image import Image, Layer
from firkin.oci.lease import Lease
from firkin.oci.manifest import Descriptor, Manifest, parse_document
from firkin.oci.registry.client import FetchedManifest, RegistryClient, Repository
from firkin.oci.registry.download import DEFAULT_PACE, Growing, GrowingReader, Pace, download, in_thread
from firkin.oci.registry.progress import NoProgress, Progress
from firkin.oci.resolve import image_of, select
from firkin.oci.rootfs_cache import RootfsLease
from firkin.oci.store import ImageStore
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.reference import Reference

__all__ = ["pull"]

_MANIFEST = faults.declare("oci.pull.manifest", "an image's manifests are stored, none of its layers")
_BLOBS = faults.declare("oci.pull.blobs", "all of an image is stored, no name points at it")

_log = logging.getLogger(__name__)
_PARALLEL = 4


async def pull(
    store: ImageStore,
    reference: Reference | str,
    *,
    platform: Platform | None = None,
    convert: int | None = None,
    client: RegistryClient | None = None,
    progress: Progress | None = None,
    pace: Pace = DEFAULT_PACE,
) -> Pulled:
    """Fetch what `reference` points at for `platform`, and name it.

    With `convert` (a virtual size in bytes, such as `DEFAULT_DISK`) the root filesystem is made from the first bytes of
    the download on, and held in the answer. Raises `ImageNotFoundError`, `RegistryError`, `ImageError`.
    """
    wanted = Reference.parse(reference) if isinstance(reference, str) else reference
    async with contextlib.AsyncExitStack() as stack:
        if client is None:
            client = await stack.enter_async_context(RegistryClient(limits=store.limits))
        job = _Pull(store, wanted, platform, client, progress or NoProgress(), pace)
        stack.callback(job.close)
        return await job.run(convert)


class _Pull:
    """One pull: the sources, the lease over all it stores, and what has been found out."""

    def __init__(
        self,
        store: ImageStore,
        reference: Reference,
        platform: Platform | None,
        client: RegistryClient,
        progress: Progress,
        pace: Pace,
    ) -> None:
        self._store = store
        self._reference = reference
        self._platform = platform
        self._client = client
        self._progress = progress
        self._pace = pace
        # The most that can wait at once: each download for another process's, and the conversion.
        self._threads = ThreadPoolExecutor(_PARALLEL + 2, thread_name_prefix="firkin-pull")
        self.lease = Lease(store.content.root)

    def close(self) -> None:
        """Give up the lease and the threads."""
        self.lease.release()
        self._threads.shutdown(wait=False)

    async def run(self, convert: int | None) -> Pulled:
        before = self._store.names.get(self._reference)
        sources = await self._sources()
        if before is not None and await self._unchanged(sources, before.target):
            with contextlib.suppress(ImageNotFoundError):
                image = self._complete(before.target)
                return Pulled(image, changed=False, rootfs=await self._converted(image, convert))
        target, manifest = await self._manifests(sources)
        faults.point(_MANIFEST)
        rootfs = await self._blobs(sources, target, manifest, convert)
        faults.point(_BLOBS)
        try:
            image = self._complete(target)
            await in_thread(self._threads, self._store.names.set, self._reference, target)
        except BaseException:
            if rootfs is not None:
                rootfs.release()
            raise
        return Pulled(image, changed=before is None or before.target.digest != target.digest, rootfs=rootfs)

    async def _sources(self) -> list[Repository]:
        hosts = self._client.settings.hosts(self._reference.registry)
        found = []
        for host in hosts:
            try:
                found.append(await self._client.repository(self._reference, host))
            except RegistryError:
                if host == hosts[-1]:
                    raise
        return found

    async def _unchanged(self, sources: Sequence[Repository], target: Descriptor) -> bool:
        if self._reference.digest is not None:
            return self._reference.digest == target.digest
        for source in sources:
            try:
                return await source.manifest_digest(self._reference.tag or "latest") == target.digest
            except (RegistryError, ImageNotFoundError):
                if source is sources[-1]:
                    raise
        return False

    def _complete(self, target: Descriptor) -> Image:
        """The image below `target`, every blob of it held. Raises `ImageNotFoundError` where one is missing."""
        image = image_of(self._store.content, target, self._platform, self._reference, self._store.limits)
        blobs = [image.digest, image.image_id, *(layer.descriptor.digest for layer in image.layers)]
        self.lease.hold(target.digest, *blobs)
        for digest in blobs:
            self._store.content.size(digest)
        return image

    async def _fetch_manifest(self, sources: Sequence[Repository], wanted: str | Digest) -> FetchedManifest:
        for source in sources[:-1]:
            with contextlib.suppress(RegistryError, ImageNotFoundError):
                return await source.manifest(wanted)
        return await sources[-1].manifest(wanted)

    async def _manifests(self, sources: Sequence[Repository]) -> tuple[Descriptor, Manifest]:
        """Fetch and store the manifest for the platform and the indexes above it; return the topmost, and the
        manifest.
        """
        fetched = await self._fetch_manifest(sources, self._reference.digest or self._reference.tag or "latest")
        top: Descriptor | None = None
        for _ in range(4):
            document = parse_document(fetched.content, fetched.media_type, self._store.limits)
            here = Descriptor(document.media_type, fetched.digest, len(fetched.content))
            top = top or here
            self.lease.hold(fetched.digest)
            await in_thread(self._threads, self._store.content.put, fetched.content, fetched.digest)
            if isinstance(document, Manifest):
                return top, document
            chosen = select(document, self._platform)
            fetched = await self._fetch_manifest(sources, chosen.digest)
            fetched = replace(fetched, media_type=chosen.media_type or fetched.media_type)
        raise ImageError(f"the index of {self._reference} is nested too deep")

    async def _blobs(
        self, sources: Sequence[Repository], target: Descriptor, manifest: Manifest, convert: int | None
    ) -> RootfsLease | None:
        layers = {blob.digest: blob for blob in manifest.layers if blob.digest != manifest.config.digest}
        self.lease.hold(manifest.config.digest, *layers)
        growing = {digest: Growing() for digest in layers} if convert is not None else {}
        slots = asyncio.Semaphore(_PARALLEL)

        async def fetch(blob: Descriptor) -> None:
            async with slots:
                content, reader = self._store.content, growing.get(blob.digest)
                await download(
                    content,
                    sources,
                    blob,
                    threads=self._threads,
                    progress=self._progress,
                    growing=reader,
                    pace=self._pace,
                )

        await fetch(manifest.config)
        image = image_of(self._store.content, target, self._platform, self._reference, self._store.limits)
        made = asyncio.ensure_future(self._convert(image, convert, growing)) if convert is not None else None
        downloads = [asyncio.create_task(fetch(blob)) for blob in layers.values()]
        try:
            await asyncio.gather(*downloads)
        except BaseException:
            await _give_up(downloads, growing.values(), made)
            raise
        if convert is None or made is None:
            return None
        try:
            if held := await asyncio.shield(made):
                await in_thread(self._threads, self._store.rootfs_cache.shrink, self._store.rootfs_limit)
                return held
        except asyncio.CancelledError:
            await _give_up([], growing.values(), made)
            raise
        finally:
            for growing_blob in growing.values():
                growing_blob.close()
        # A download began anew under the converter's eyes. All is here now: plainly, and with its own error if any.
        return await in_thread(self._threads, self._store.rootfs, image, convert)

    async def _convert(self, image: Image, size: int, growing: dict[Digest, Growing]) -> RootfsLease | None:
        """Convert from what is still coming; None where that failed, for a reason the downloads may know better."""

        def opener(layer: Layer) -> GrowingReader:
            return growing[layer.descriptor.digest].reader()

        cache = self._store.rootfs_cache
        try:
            return await in_thread(self._threads, cache.lease, image, size, self._store.content, opener)
        except FirkinError as error:
            _log.info("the conversion of %s alongside its download failed: %s", image, error)
            return None

    async def _converted(self, image: Image, size: int | None) -> RootfsLease | None:
        return None if size is None else await in_thread(self._threads, self._store.rootfs, image, size)


async def _give_up(
    downloads: Iterable[asyncio.Task[None]],
    growing: Iterable[Growing],
    made: asyncio.Future[RootfsLease | None] | None,
) -> None:
    """Stop everything, wait for it, and hold nothing."""
    for download_task in downloads:
        download_task.cancel()
    for blob in growing:
        blob.fail()
    await asyncio.gather(*downloads, return_exceptions=True)
    if made is not None:
        with contextlib.suppress(FirkinError):
            if held := await made:
                held.release()
    for blob in growing:
        blob.close()
