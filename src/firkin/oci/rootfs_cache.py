"""Root filesystem images of OCI images, converted once per machine and shared read-only.

An image is cached by its chain of diff ids and its virtual size. Its own `flock` says who uses it: shared by users,
exclusive for the one who removes it. One process converts, under a lock; others wait for it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

from firkin import faults
from firkin.errors import ImageError
from firkin.frozen import dataclass
from firkin.oci._lock import FileLock, lock_file
from firkin.oci.content import ContentStore
from firkin.oci.image import Image, Layer
from firkin.oci.layer_stream import LayerStream
from firkin.oci.manifest import ImageLimits
from firkin.types.folders import flush

__all__ = ["CachedRootfs", "LayerOpener", "RootfsCache", "RootfsLease", "WriteImage"]

_STARTED = faults.declare("oci.convert.started", "the conversion's lock is held, nothing is written")
_LAYER = faults.declare("oci.convert.layer", "a root filesystem image is half written under its temporary name")
_WRITTEN = faults.declare("oci.convert.written", "a root filesystem image is written, not yet flushed or renamed")
_PUBLISHED = faults.declare("oci.convert.published", "a root filesystem image has its name, its folder is not flushed")

# Raised whenever the writer's output for the same layers changes, so that old images are not taken for new ones.
_FORMAT = 1
_WAIT = 3600.0
_PROBE = 30.0


class WriteImage(Protocol):
    """What turns layer streams into an ext4 image: `firkin.ext4.write_image`, or a test's stand-in."""

    def __call__(self, layers: Iterable[Any], destination: Path, *, size: int) -> object: ...


LayerOpener = Callable[[Layer], Any]


@dataclass(frozen=True, slots=True)
class CachedRootfs:
    """One cached image: what it takes on the disk, and when it was last used (seconds since the epoch)."""

    path: Path
    bytes: int
    used: float


class RootfsLease:
    """A root filesystem image in use, read-only; a context manager. It stays until `release`, or the process's end."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock
        self.path = lock.path

    def fileno(self) -> int:
        """A read-only descriptor of the image, valid as long as the lease."""
        return self._lock.descriptor

    def release(self) -> None:
        """Give the image up. A second call does nothing."""
        self._lock.release()

    def __enter__(self) -> RootfsLease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class RootfsCache:
    """Converted images below `root`."""

    def __init__(self, root: Path, *, write_image: WriteImage | None = None, limits: ImageLimits) -> None:
        self.root = root
        self._write_image = write_image
        self._limits = limits

    def path(self, image: Image, size: int) -> Path:
        """Where the image's root filesystem is, or would be."""
        return self.root / f"{image.chain_id.hex}-{int(size)}-{_FORMAT}.ext4"

    def cached(self, image: Image, size: int) -> RootfsLease | None:
        """The image's root filesystem where it is there already."""
        return _use(self.path(image, size))

    def lease(
        self,
        image: Image,
        size: int,
        content: ContentStore,
        opener: LayerOpener | None = None,
        *,
        timeout: float = _WAIT,
    ) -> RootfsLease:
        """The image's root filesystem, converted first where nobody has done it yet.

        `opener` gives a layer's packed bytes (an object with `read` and `close`); by default its blob in `content`.
        Raises `ImageError` where a layer is missing or damaged or the writer refuses it, `FirkinTimeoutError` where
        another process converts for longer than `timeout` seconds.
        """
        path = self.path(image, size)
        if held := _use(path):
            return held
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        converting = lock_file(path.with_suffix(".lock"), timeout=timeout)
        assert converting is not None
        with converting:
            try:
                if held := _use(path):
                    return held
                faults.point(_STARTED)
                self._convert(image, size, path, opener or (lambda layer: content.open(layer.descriptor.digest)))
                held = _use(path)
            finally:
                converting.path.unlink(missing_ok=True)
        if held is None:
            raise ImageError(f"the root filesystem of {image} was removed while it was made", hint="try again")
        return held

    def in_use(self, image: Image) -> bool:
        """Whether a live process holds any root filesystem image of `image`."""
        return any(_busy(path) for path in self.root.glob(f"{image.chain_id.hex}-*.ext4"))

    def __iter__(self) -> Iterator[CachedRootfs]:
        """What is cached, the longest unused first."""
        entries = []
        for path in self.root.glob("*.ext4"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                entries.append(CachedRootfs(path, found.st_blocks * 512, found.st_atime))
        yield from sorted(entries, key=lambda entry: (entry.used, entry.path.name))

    def remove(self, path: Path) -> bool:
        """Remove one cached image; false where a live process uses it."""
        lock = lock_file(path, create=False)
        if lock is None:
            return not path.exists()
        with lock:
            path.unlink(missing_ok=True)
        return True

    def shrink(self, most: int) -> int:
        """Remove what was unused longest, but nothing in use, until `most` bytes are left; return how many went."""
        entries = list(self)
        total = sum(entry.bytes for entry in entries)
        freed = 0
        for entry in entries:
            if total - freed <= most:
                break
            if self.remove(entry.path):
                freed += entry.bytes
        return freed

    def sweep(self) -> None:
        """Remove what conversions of dead processes left."""
        for path in [*self.root.glob("*.partial"), *self.root.glob("*.lock")]:
            owner = lock_file(path.with_suffix(".lock"))
            if owner is None:
                continue
            with owner:
                path.unlink(missing_ok=True)
                owner.path.unlink(missing_ok=True)

    def _convert(self, image: Image, size: int, path: Path, opener: LayerOpener) -> None:
        temporary = path.with_suffix(".partial")
        temporary.unlink(missing_ok=True)
        write_image = self._write_image or _ext4_writer()
        try:
            with contextlib.closing(self._streams(image, opener)) as streams:
                write_image(streams, temporary, size=size)
            faults.point(_WRITTEN)
            flush(temporary)
            temporary.chmod(0o444)
            temporary.rename(path)
            faults.point(_PUBLISHED)
            flush(path.parent)
        except OSError as error:
            raise ImageError(f"can't convert {image}: {error.strerror or error}", hint="is the disk full?") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _streams(self, image: Image, opener: LayerOpener) -> Generator[LayerStream, None, None]:
        left = self._limits.unpacked
        for layer in image.layers:
            source = opener(layer)
            try:
                with LayerStream(source, layer, limit=left) as stream:
                    yield stream
                    faults.point(_LAYER)
                    stream.verify()
                    left -= stream.length
            finally:
                source.close()


def _use(path: Path) -> RootfsLease | None:
    # Who removes or probes an image holds it exclusively, for an instant only.
    lock = lock_file(path, shared=True, create=False, timeout=_PROBE)
    if lock is None:
        return None
    # When it was used is told by its atime: the mtime stays, by which a snapshot knows the image again.
    os.utime(lock.descriptor, ns=(time.time_ns(), os.fstat(lock.descriptor).st_mtime_ns))
    return RootfsLease(lock)


def _busy(path: Path) -> bool:
    lock = lock_file(path, create=False)
    if lock is None:
        return path.exists()
    lock.release()
    return False


def _ext4_writer() -> WriteImage:
    from firkin.ext4 import write_image

    return cast(WriteImage, write_image)
