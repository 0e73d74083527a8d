"""The content store: blobs by digest, written so that a crash at any instant leaves only whole, verified blobs.

A blob grows in `ingest/` under an exclusive lock on its own file, is checked, flushed, and renamed to `blobs/`. Who
wants the same blob waits for that lock. What a dead writer left stays as a start for the next one.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from firkin import faults
from firkin.errors import ImageError, ImageNotFoundError
from firkin.oci._lock import FileLock, lock_file
from firkin.types.digest import Digest
from firkin.types.folders import flush

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["ContentStore", "Ingest"]

_PARTIAL = faults.declare("oci.ingest.partial", "a blob is half written under its temporary name")
_FLUSHED = faults.declare("oci.ingest.flushed", "a blob is whole under its temporary name, not yet renamed")
_RENAMED = faults.declare("oci.ingest.renamed", "a blob has its name, its folder is not yet flushed")

_CHUNK = 1 << 20
_WAIT = 3600.0

Hasher = Callable[[str], Any]


class Ingest:
    """One blob being written; a context manager. Leaving without `commit` keeps the partial file for a later try."""

    def __init__(self, store: ContentStore, lock: FileLock, digest: Digest | None, size: int | None) -> None:
        self._store = store
        self._lock = lock
        self._expected = digest
        self._size = size
        self._hash: _Hash = store.hasher(digest.algorithm if digest else "sha256")
        self.offset = 0

    @property
    def path(self) -> Path:
        """The temporary file, which grows."""
        return self._lock.path

    @property
    def digest(self) -> Digest:
        """The digest of what is written so far."""
        return Digest.from_hash(self._hash)

    def resume(self) -> int:
        """Take up what an earlier writer left: hash it and return how many bytes are there already."""
        with os.fdopen(self._lock.descriptor, "rb", closefd=False) as file:
            file.seek(0)
            while chunk := file.read(_CHUNK):
                self._hash.update(chunk)
                self.offset += len(chunk)
        if self._size is not None and self.offset > self._size:
            self.restart()
        return self.offset

    def restart(self) -> None:
        """Forget what is there and begin at the first byte."""
        os.ftruncate(self._lock.descriptor, 0)
        os.lseek(self._lock.descriptor, 0, os.SEEK_SET)
        self._hash = self._store.hasher(self._hash.name)
        self.offset = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. Raises `ImageError` past the size that was promised, or where the disk refuses."""
        if self._size is not None and self.offset + len(data) > self._size:
            self.restart()
            raise ImageError(f"a blob is larger than the {self._size} bytes that its descriptor promises")
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._lock.descriptor, view, self.offset)
                self._hash.update(view[:written])
                self.offset += written
                view = view[written:]
            faults.point(_PARTIAL)
        except OSError as error:
            raise ImageError(f"can't write to the image store: {error.strerror}", hint="is the disk full?") from error

    def commit(self) -> Digest:
        """Check digest and size, flush, and give the blob its name. Raises `ImageError`, and drops what is wrong."""
        found = self.digest
        wanted = self._expected or found
        if self._size is not None and self.offset != self._size:
            raise self._refuse(f"{wanted} has {self.offset} bytes, its descriptor promises {self._size}")
        if found != wanted:
            raise self._refuse(f"the content of {wanted} hashes to {found}")
        target = self._store.path(found)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            os.ftruncate(self._lock.descriptor, self.offset)
            os.fsync(self._lock.descriptor)
            faults.point(_FLUSHED)
            os.fchmod(self._lock.descriptor, 0o400)
            self._lock.path.rename(target)
            faults.point(_RENAMED)
            flush(target.parent)
        except OSError as error:
            raise ImageError(f"can't write to the image store: {error.strerror}", hint="is the disk full?") from error
        return found

    def _refuse(self, why: str) -> ImageError:
        self._lock.path.unlink(missing_ok=True)
        return ImageError(why, hint="the image was damaged on its way; try again")

    def __enter__(self) -> Ingest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._expected is None and self._lock.descriptor >= 0 and not self._store.is_blob(self._lock):
            self._lock.path.unlink(missing_ok=True)  # Nobody could find a nameless start again.
        self._lock.release()


class ContentStore:
    """Blobs below `root`, by digest, shared by all processes of a user. `hasher` makes a hash object by its name."""

    def __init__(self, root: Path, *, hasher: Hasher = hashlib.new) -> None:
        self.root = root
        self.hasher = hasher

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here, whole."""
        return self.path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """The blob's size in bytes. Raises `ImageNotFoundError`."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob, verified. Raises `ImageNotFoundError`, `ImageError` where it is damaged or above `limit`."""
        try:
            with self.path(digest).open("rb") as file:
                content = file.read(limit + 1)
        except FileNotFoundError as error:
            raise _missing(digest) from error
        if len(content) > limit:
            raise ImageError(f"{digest} is larger than {limit} bytes")
        state = self.hasher(digest.algorithm)
        state.update(content)
        if state.hexdigest() != digest.hex:
            raise ImageError(f"{digest} is damaged in the image store", hint="remove the image and get it again")
        return content

    def open(self, digest: Digest) -> io.FileIO:
        """The blob for reading, unbuffered; the caller verifies while it reads. Raises `ImageNotFoundError`."""
        try:
            return io.FileIO(self.path(digest))
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def ingest(self, digest: Digest | None, size: int | None = None, *, timeout: float = _WAIT) -> Ingest | None:
        """Begin to write a blob; None where it is here already, perhaps because another process just finished it.

        Without a `digest` the content decides it. Raises `FirkinTimeoutError` where another writes it for too long.
        """
        folder = self.root / "ingest"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if digest is None:
            lock = lock_file(folder / f"new-{os.urandom(8).hex()}", timeout=timeout)
        else:
            if self.has(digest):
                return None
            lock = lock_file(folder / f"{digest.algorithm}-{digest.hex}", timeout=timeout)
        assert lock is not None
        if digest is not None and self.has(digest):
            lock.path.unlink(missing_ok=True)
            lock.release()
            return None
        return Ingest(self, lock, digest, size)

    def put(self, content: bytes, digest: Digest | None = None) -> Digest:
        """Store a small blob and return its digest. Raises `ImageError` where it is not the `digest` it should be."""
        wanted = digest or Digest.of(content)
        writer = self.ingest(wanted, len(content))
        if writer is not None:
            with writer:
                writer.restart()
                writer.write(content)
                writer.commit()
        return wanted

    def is_blob(self, lock: FileLock) -> bool:
        """Whether the ingest's file has moved to its place among the blobs."""
        return not lock.path.exists()

    def __iter__(self) -> Iterator[Digest]:
        """Every blob's digest, sorted."""
        for folder in sorted((self.root / "blobs").glob("sha*")):
            for path in sorted(folder.iterdir()):
                yield Digest(f"{folder.name}:{path.name}")


def _missing(digest: Digest) -> ImageNotFoundError:
    return ImageNotFoundError(f"the image store has no {digest}", hint="get the image again")
