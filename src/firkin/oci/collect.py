"""Removing names, and collecting what no name and no live process needs."""

from __future__ import annotations

import contextlib
import logging

from firkin import faults
from firkin.errors import ImageError, StateError
from firkin.frozen import dataclass
from firkin.oci._lock import lock_file
from firkin.oci.content import ContentStore
from firkin.oci.lease import leased, store_lock
from firkin.oci.manifest import Descriptor, ImageLimits, Index, parse_document
from firkin.oci.references import ReferenceStore, Tagged
from firkin.oci.resolve import image_of, manifests_of
from firkin.oci.rootfs_cache import RootfsCache
from firkin.types.digest import Digest

__all__ = ["Collector", "PruneReport"]

_UNNAMED = faults.declare("oci.prune.unnamed", "an image's name is gone, its blobs are still there")
_BLOB = faults.declare("oci.prune.blob", "some blobs that nobody needs are removed, others not yet")
_ROOTFS = faults.declare("oci.prune.rootfs", "some cached root filesystems are removed, others not yet")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was removed: names (a digest for an image without one), blobs, root filesystems, and the bytes they took."""

    images: tuple[str, ...] = ()
    blobs: int = 0
    rootfs: int = 0
    bytes: int = 0


class Collector:
    """Removal for one store's parts. Nothing that a live process holds is taken."""

    def __init__(self, content: ContentStore, names: ReferenceStore, cache: RootfsCache, limits: ImageLimits) -> None:
        self._content = content
        self._names = names
        self._cache = cache
        self._limits = limits

    def remove(self, entry: Tagged, *, everything: bool, force: bool) -> PruneReport:
        """Take the name `entry` away, and all other names of its image where `everything` is set.

        The image goes with its last name. Raises `StateError` where it has further names or is in use, unless `force`.
        """
        same = [other for other in self._names if other.target.digest == entry.target.digest]
        doomed = same if everything else [entry]
        if everything and len(same) > 1 and not force:
            listed = ", ".join(str(other.reference) for other in same)
            raise StateError(f"the image has several names: {listed}", hint="remove them by name, or --force")
        if len(doomed) == len(same) and not force and self.in_use(entry.target):
            raise StateError(f"the image {_shown(entry)} is in use", hint="stop its containers, or --force")
        return self._drop(doomed, partial=False)

    def prune(self, *, everything: bool = False) -> PruneReport:
        """Remove images without a name (or, with `everything`, all) that are not in use, and all that nobody needs."""
        entries = [entry for entry in self._names if everything or entry.reference is None]
        return self._drop(
            [entry for entry in entries if not self.in_use(entry.target)], partial=True, all_rootfs=everything
        )

    def in_use(self, target: Descriptor) -> bool:
        """Whether a live process has a root filesystem of any image below `target`."""
        with contextlib.suppress(ImageError):
            for descriptor, _ in manifests_of(self._content, target, self._limits):
                if self._cache.in_use(image_of(self._content, descriptor, None, None, self._limits)):
                    return True
        return False

    def _drop(self, entries: list[Tagged], *, partial: bool, all_rootfs: bool = False) -> PruneReport:
        for entry in entries:
            self._names.remove(entry)
        faults.point(_UNNAMED)
        blobs, freed = self._sweep_blobs(partial=partial)
        rootfs, more = self._sweep_rootfs(everything=all_rootfs)
        return PruneReport(tuple(_shown(entry) for entry in entries), blobs, rootfs, freed + more)

    def _sweep_blobs(self, *, partial: bool) -> tuple[int, int]:
        count = freed = 0
        with store_lock(self._content.root):
            self._names.sweep()
            kept = leased(self._content.root)
            for entry in self._names:
                self._mark(entry.target, kept)
            for digest in list(self._content):
                if digest not in kept:
                    freed += self._content.size(digest)
                    self._content.path(digest).unlink()
                    count += 1
                    faults.point(_BLOB)
        return (count, freed + self._sweep_partial()) if partial else (count, freed)

    def _sweep_partial(self) -> int:
        freed = 0
        for path in (self._content.root / "ingest").glob("*"):
            if lock := lock_file(path, create=False):
                with lock:
                    freed += path.stat().st_size
                    path.unlink()
        return freed

    def _mark(self, target: Descriptor, kept: set[Digest], depth: int = 0) -> None:
        kept.add(target.digest)
        try:
            content = self._content.read(target.digest, self._limits.manifest)
            document = parse_document(content, target.media_type, self._limits)
        except ImageError as error:
            # Without its manifest an image is lost already; the rest of the store need not stay full for it.
            _log.warning("the image %s can't be read: %s", target.digest, error)
            return
        if isinstance(document, Index):
            for child in document.manifests:
                if depth < 4 and self._content.has(child.digest):
                    self._mark(child, kept, depth + 1)
            return
        kept.update(part.digest for part in (document.config, *document.layers))

    def _sweep_rootfs(self, *, everything: bool) -> tuple[int, int]:
        count = freed = 0
        self._cache.sweep()
        known = set() if everything else self._chains()
        for cached in self._cache:
            if cached.path.name.partition("-")[0] not in known and self._cache.remove(cached.path):
                count, freed = count + 1, freed + cached.bytes
                faults.point(_ROOTFS)
        return count, freed

    def _chains(self) -> set[str]:
        chains = set()
        for entry in self._names:
            with contextlib.suppress(ImageError):
                for descriptor, _ in manifests_of(self._content, entry.target, self._limits):
                    chains.add(image_of(self._content, descriptor, None, None, self._limits).chain_id.hex)
        return chains


def _shown(entry: Tagged) -> str:
    return entry.reference.familiar() if entry.reference else str(entry.target.digest)
