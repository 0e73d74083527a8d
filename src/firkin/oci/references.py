"""Names of images in the store: one small file a name, replaced atomically."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from firkin import faults
from firkin.errors import ImageError, InvalidInputError
from firkin.frozen import dataclass
from firkin.oci._json import number, optional_text, parse_object
from firkin.oci.lease import store_lock
from firkin.oci.manifest import Descriptor
from firkin.types.digest import Digest
from firkin.types.folders import flush
from firkin.types.reference import Reference

__all__ = ["ReferenceStore", "Tagged"]

_WRITTEN = faults.declare("oci.reference.written", "a name's file is whole under its temporary name, not yet renamed")
_MOVED = faults.declare("oci.reference.moved", "a name points at another image; the image it left has no name yet")
_RECORD_MAX = 16 << 10


@dataclass(frozen=True, slots=True)
class Tagged:
    """A name and the manifest or index it points at. `reference` is None for an image that has no name.

    `updated` is when, in seconds since the epoch.
    """

    reference: Reference | None
    target: Descriptor
    updated: int


class ReferenceStore:
    """The names below `root`/references."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "references"

    def get(self, reference: Reference) -> Tagged | None:
        """What `reference` points at: its tag's target; with a digest, that image where it is known by the name."""
        found = self._read(self._folder / _file_name(f"{reference.name}:{reference.tag}")) if reference.tag else None
        if reference.digest is None or (found is not None and found.target.digest == reference.digest):
            return found
        return self._read(self._folder / _file_name(f"{reference.name}@{reference.digest}"))

    def untagged(self, digest: Digest) -> Tagged | None:
        """The record of an image without a name."""
        return self._read(self._folder / _file_name(f"@{digest}"))

    def set(self, reference: Reference | None, target: Descriptor) -> None:
        """Point `reference` at `target`; None keeps `target` without a name.

        An image that loses its last name stays, untagged. With a digest the name is `name@digest`.
        """
        with store_lock(self._root):
            if reference is None:
                self._keep(target)
                return
            named = _key(reference)
            before = self.get(named)
            if before is not None and before.target.digest != target.digest:
                # Before the move, so that a crash in between loses nothing: at worst it has both.
                self._write(_file_name(f"@{before.target.digest}"), None, before.target)
            self._write(_file_name(named.canonical()), named, target)
            faults.point(_MOVED)
            self._drop_untagged_where_named()

    def remove(self, entry: Tagged) -> None:
        """Forget the name (or the nameless record) `entry`. The blobs go when the store is collected."""
        key = f"@{entry.target.digest}" if entry.reference is None else entry.reference.canonical()
        with store_lock(self._root):
            (self._folder / _file_name(key)).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Tagged]:
        """Every record: names in order, then images without a name."""
        if not self._folder.is_dir():
            return
        entries = [entry for path in self._folder.glob("*.json") if (entry := self._read(path))]
        entries.sort(key=lambda entry: (entry.reference is None, str(entry.reference), entry.target.digest))
        yield from entries

    def _keep(self, target: Descriptor) -> None:
        if not any(entry.target.digest == target.digest for entry in self):
            self._write(_file_name(f"@{target.digest}"), None, target)

    def _drop_untagged_where_named(self) -> None:
        entries = list(self)
        named = {entry.target.digest for entry in entries if entry.reference is not None}
        for entry in entries:
            if entry.reference is None and entry.target.digest in named:
                (self._folder / _file_name(f"@{entry.target.digest}")).unlink(missing_ok=True)

    def _write(self, name: str, reference: Reference | None, target: Descriptor) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = {
            "reference": reference.canonical() if reference else None,
            # Nothing else of the descriptor: its annotations are the sender's, and of any length.
            "target": {"mediaType": target.media_type, "digest": str(target.digest), "size": target.size},
            "updated": int(time.time()),
        }
        temporary = self._folder / f".{name}.{os.urandom(4).hex()}"
        try:
            with temporary.open("xb") as file:
                file.write(json.dumps(record).encode())
                file.flush()
                os.fsync(file.fileno())
            faults.point(_WRITTEN)
            temporary.rename(self._folder / name)
            flush(self._folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ImageError(f"can't write the image's name: {error.strerror}", hint="is the disk full?") from error

    def sweep(self) -> None:
        """Remove temporary files of writers that died. Call it under the exclusive store lock."""
        for path in self._folder.glob(".*.json.*"):
            path.unlink(missing_ok=True)

    @staticmethod
    def _read(path: Path) -> Tagged | None:
        try:
            with path.open("rb") as file:
                content = file.read(_RECORD_MAX)
        except FileNotFoundError:
            return None
        record = parse_object(content, f"the image store's {path.name}")
        name = optional_text(record, "reference")
        return Tagged(
            Reference.parse(name) if name else None,
            Descriptor.parse(record.get("target")),
            number(record, "updated"),
        )


def _key(reference: Reference) -> Reference:
    if reference.digest is not None:
        return reference.pinned(reference.digest)
    if reference.tag is None:
        raise InvalidInputError(f"{reference} has no tag", value=reference, hint="add one, like :latest")
    return reference


def _file_name(key: str) -> str:
    # Hashed, as a reference may be longer than a file's name and holds `/`.
    return hashlib.sha256(key.encode()).hexdigest()[:40] + ".json"
