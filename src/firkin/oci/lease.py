"""Leases: what a process is using right now, so that no other process collects it.

A lease is a file that lists digests, locked by its owner for as long as it lives: a dead owner's lease is void by
itself. The store's one lock makes "note it in the lease, then see that it is there" and "read all leases, then
delete" exclude each other; it is never held across a transfer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from firkin.oci._lock import FileLock, lock_file
from firkin.types.digest import Digest

__all__ = ["Lease", "leased", "store_lock"]

_LOCK_LIMIT = 60.0
_LEASE_BYTES_MAX = 16 << 20


@contextlib.contextmanager
def store_lock(root: Path, *, shared: bool = False) -> Iterator[None]:
    """The store's short lock: shared to extend a lease, exclusive to change references or to delete."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = lock_file(root / "lock", shared=shared, timeout=_LOCK_LIMIT)
    assert lock is not None
    with lock:
        yield


class Lease:
    """Digests kept from collection until `release`, the end of the `with` block, or the death of the process."""

    def __init__(self, root: Path) -> None:
        self._root = root
        folder = root / "leases"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with store_lock(root, shared=True):
            lock = lock_file(folder / os.urandom(8).hex())
        assert lock is not None
        self._lock: FileLock = lock

    def hold(self, *digests: Digest) -> None:
        """Add `digests`; what of them is in the store now stays there."""
        lines = "".join(f"{digest}\n" for digest in digests).encode()
        with store_lock(self._root, shared=True):
            os.write(self._lock.descriptor, lines)

    def release(self) -> None:
        """Give everything up. A second call does nothing."""
        if self._lock.descriptor >= 0:
            self._lock.path.unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def leased(root: Path) -> set[Digest]:
    """Every digest that a live process holds; removes dead ones' leases. Call it under the exclusive store lock."""
    found: set[Digest] = set()
    folder = root / "leases"
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        if stale := lock_file(path, create=False):
            path.unlink(missing_ok=True)
            stale.release()
            continue
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            for line in file.read(_LEASE_BYTES_MAX).decode("ascii").splitlines():
                found.add(Digest(line))
    return found
