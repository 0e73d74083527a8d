"""The image store: what is loaded, pulled, resolved, converted and removed, shared by all processes of a user."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from firkin.errors import ImageNotFoundError
from firkin.oci.config import ImageConfig
from firkin.oci.content import ContentStore, Hasher
from firkin.oci.image import Image
from firkin.oci.manifest import DEFAULT_LIMITS, ImageLimits
from firkin.oci.references import ReferenceStore, Tagged
from firkin.oci.resolve import find, image_of, is_id, local_reference, missing
from firkin.oci.rootfs_cache import RootfsCache, RootfsLease, WriteImage
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.reference import Reference
from firkin.types.state import StateDirs

if TYPE_CHECKING:
    from firkin.oci.collect import Collector, PruneReport
    from firkin.oci.save import SaveFormat

__all__ = ["DEFAULT_DISK", "ImageStore"]

DEFAULT_DISK = 16 << 30
ROOTFS_LIMIT = 32 << 30


class ImageStore:
    """Images below `dirs.data/images`, their root filesystems below `dirs.cache/rootfs` (default: the user's own).

    Any number of stores, in any number of processes, may work on the same folders. Unused root
    filesystems beyond `rootfs_limit` bytes go, the longest unused first. `write_image` and `hasher` are for tests.
    """

    def __init__(
        self,
        dirs: StateDirs | None = None,
        *,
        limits: ImageLimits = DEFAULT_LIMITS,
        write_image: WriteImage | None = None,
        hasher: Hasher = hashlib.new,
        rootfs_limit: int = ROOTFS_LIMIT,
    ) -> None:
        dirs = dirs or StateDirs.default()
        self.rootfs_limit = rootfs_limit
        self.limits = limits
        self.content = ContentStore(dirs.data / "images", hasher=hasher)
        self.names = ReferenceStore(dirs.data / "images")
        self.rootfs_cache = RootfsCache(dirs.cache / "rootfs", write_image=write_image, limits=limits)
        self._resolved: dict[tuple[Digest, Platform | None], Image] = {}

    def resolve(self, reference: Reference | str, platform: Platform | None = None) -> Image:
        """The local image that `reference` names, for `platform` (default: this host's, else the only one there is).

        A short name is looked up as in Podman; a digest or id of 12 or more digits works too. `busybox` is made on the
        spot where no image bears the name. Raises `ImageNotFoundError`.
        """
        from firkin.oci.busybox import is_busybox

        entry = find(self.names, self.content, reference)
        if entry is None and is_busybox(str(reference)):
            self.ensure_busybox()
            entry = find(self.names, self.content, reference)
        if entry is None:
            raise missing(reference)
        return self._image(entry, platform)

    def ensure_busybox(self) -> Image:
        """The embedded image `localhost/busybox`, made of the host's static busybox where it is not there yet.

        Raises `ImageNotFoundError`.
        """
        from firkin.oci.busybox import BUSYBOX, make_busybox

        entry = self.names.get(BUSYBOX)
        if entry is None:
            make_busybox(self.content, self.names)
            entry = self.names.get(BUSYBOX)
        if entry is None:
            raise ImageNotFoundError("localhost/busybox was removed while it was made", hint="try again")
        return self._image(entry, None)

    def rootfs(self, image: Image, size: int = DEFAULT_DISK, *, timeout: float = 3600.0) -> RootfsLease:
        """The read-only ext4 image of `image`, `size` bytes virtual, made where it is not cached; a context manager.

        Blocks while this or another process converts. Raises `ImageError`, `FirkinTimeoutError`.
        """
        from firkin.oci.lease import Lease

        if held := self.rootfs_cache.cached(image, int(size)):
            return held
        with Lease(self.content.root) as lease:
            lease.hold(*(layer.descriptor.digest for layer in image.layers))
            held = self.rootfs_cache.lease(image, int(size), self.content, timeout=timeout)
        self.rootfs_cache.shrink(self.rootfs_limit)
        return held

    def load(self, path: Path | str | BinaryIO, *, name: str | None = None) -> list[Image]:
        """Load all images of an OCI image layout (folder or tar) or a docker archive; gzip and zstd are undone.

        `name` takes the place of the file's stem in `localhost/stem:tag` for a layout that gives only a tag. Raises
        `ImageError`; then no name has changed.
        """
        from firkin.oci.load import load

        if isinstance(path, str):
            path = Path(path)
        stem = name or (_stem(path) if isinstance(path, Path) else "loaded")
        entries = load(self.content, self.names, path, stem=stem, limits=self.limits)
        return [self._image(Tagged(reference, target, 0), None, anything=True) for reference, target in entries]

    def import_rootfs(
        self,
        path: Path | str | BinaryIO,
        reference: Reference | str | None = None,
        *,
        changes: Iterable[str] = (),
        message: str = "",
        platform: Platform | None = None,
    ) -> Image:
        """Make an image of a root filesystem's tar (gzip and zstd are undone); `changes` are Dockerfile instructions.

        Raises `ImageError`, and `InvalidInputError` for a bad name or change.
        """
        from firkin.oci.changes import apply_changes
        from firkin.oci.import_rootfs import import_rootfs

        name = local_reference(reference) if isinstance(reference, str) else reference
        target = import_rootfs(
            self.content,
            self.names,
            Path(path) if isinstance(path, str) else path,
            name,
            config=apply_changes(ImageConfig(), changes),
            platform=platform or Platform.current(),
            message=message,
            limits=self.limits,
        )
        return self._image(Tagged(name, target, 0), None, anything=True)

    def save(
        self,
        references: Iterable[Reference | str],
        destination: Path | IO[bytes],
        *,
        form: SaveFormat = "docker-archive",
        platform: Platform | None = None,
    ) -> None:
        """Write images to a file, folder (`oci-dir`) or stream. A `docker-archive` is an OCI layout too.

        Raises `ImageError`.
        """
        from firkin.oci.save import save

        entries = [self.find(reference) for reference in references]
        save(self.content, entries, destination, form=form, platform=platform, limits=self.limits)

    def tag(self, source: Reference | str, name: Reference | str) -> None:
        """Give the image `source` a further name; a short one goes below `localhost/`. Raises `ImageNotFoundError`."""
        entry = self.find(source)
        self.names.set(local_reference(name) if isinstance(name, str) else name, entry.target)

    def remove(self, reference: Reference | str, *, force: bool = False) -> PruneReport:
        """Take a name away, and the image with its last name. By id: the image with all its names.

        Raises `ImageNotFoundError`, and `StateError` where the image is in use or an id has several names, unless
        `force`.
        """
        entry = self.find(reference)
        named = entry.reference is not None and entry.reference.repository.rpartition("/")[2] == str(reference)
        by_id = isinstance(reference, str) and is_id(reference) and not named
        return self._collector().remove(entry, everything=by_id, force=force)

    def prune(self, *, everything: bool = False) -> PruneReport:
        """Remove images without a name, or all that are not in use, and all that nobody needs any more."""
        return self._collector().prune(everything=everything)

    def find(self, reference: Reference | str) -> Tagged:
        """The record of the image that `reference` names. Raises `ImageNotFoundError`."""
        entry = find(self.names, self.content, reference)
        if entry is None:
            raise missing(reference)
        return entry

    def images(self) -> Iterator[Tagged]:
        """Every name with what it points at, then images that have none."""
        return iter(self.names)

    def _collector(self) -> Collector:
        from firkin.oci.collect import Collector

        return Collector(self.content, self.names, self.rootfs_cache, self.limits)

    def _image(self, entry: Tagged, platform: Platform | None, *, anything: bool = False) -> Image:
        key = (entry.target.digest, platform)
        image = self._resolved.get(key)
        if image is None:
            try:
                image = image_of(self.content, entry.target, platform, entry.reference, self.limits)
            except ImageNotFoundError:
                if not anything:
                    raise
                image = self._first(entry)
            self._resolved[key] = image
        return image if image.reference == entry.reference else replace(image, reference=entry.reference)

    def _first(self, entry: Tagged) -> Image:
        from firkin.oci.resolve import manifests_of

        descriptor, _ = next(manifests_of(self.content, entry.target, self.limits))
        return image_of(self.content, descriptor, None, entry.reference, self.limits)


def _stem(path: Path) -> str:
    import re

    name = path.absolute().name.lower()
    for ending in (".gz", ".zst", ".tgz", ".tar"):
        name = name.removesuffix(ending)
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "loaded"
