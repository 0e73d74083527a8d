"""A saved VM: a folder of `ram`, `state`, disks and a manifest, published whole, believed only while it is unaltered.

`manifest.json` never changes; `verified.json` beside it remembers which files were hashed since this host started, by
identity, so that a restore need not read them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from firkin.errors import FirkinError, NotFoundError, StateError
from firkin.vmm.config import Disk
from firkin.vmm.needs import Needs
from firkin.vmm.ramfile import digest, identity

__all__ = [
    "FIRST_PAGES",
    "FORMAT",
    "MAX_LAYERS",
    "Saved",
    "SavedDisk",
    "hash_file",
    "open_saved",
    "read_manifest",
    "remember",
    "write_json",
]

# Raised when what is saved must not be read by older or newer code.
FORMAT: Final = 1
MAX_MANIFEST: Final = 4 << 20
# Above so many layers a clone's overlay begins as a copy of the last, so that no chain grows without bound.
MAX_LAYERS: Final = 4
# What `firkin.vmm.first_pages` records.
FIRST_PAGES: Final = "first-pages"
# The state is small and what QEMU parses: it is hashed every time.
_ALWAYS_HASHED = "state"


@dataclass(frozen=True, slots=True)
class SavedDisk:
    """A disk's files in the folder: the raw `image`, and qcow2 `layers` over it, the lowest first."""

    image: str
    layers: tuple[str, ...]
    read_only: bool

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Of a manifest."""
        return cls(str(document["image"]), tuple(map(str, document["layers"])), bool(document["read_only"]))


@dataclass(frozen=True, slots=True)
class Saved:
    """An opened saved VM, its files checked; they stay readable until `close`, also where the folder is removed.

    `document` is what who saved it wanted to know again. `schema` is what its agent speaks. `files` are what the
    manifest lists, `hints` (`FIRST_PAGES`) what is no part of what was saved; descriptors, by name.
    """

    folder: Path
    name: str
    needs: Needs
    sentinel: bytes
    schema: bytes
    epoch: int
    saved_disks: tuple[SavedDisk, ...]
    document: dict[str, Any]
    files: dict[str, int]
    hints: dict[str, int]

    @property
    def pages(self) -> int | None:
        """The list of its first pages, where there is one."""
        return self.hints.get(FIRST_PAGES)

    def path(self, file: str) -> Path:
        """A path that opens `file` as long as this is open, whatever became of the folder."""
        return Path(f"/proc/self/fd/{self.files[file]}")

    def disks(self, *, copy: bool = False) -> tuple[Disk, ...]:
        """For one clone: what it writes goes to an overlay of its own.

        The overlay is a copy of the last layer where `copy` says so or the chain would grow too long.
        """
        return tuple(self._disk(disk, copy) for disk in self.saved_disks)

    def _disk(self, disk: SavedDisk, copy: bool) -> Disk:
        layers = tuple(map(self.path, disk.layers))
        if layers and (copy or len(layers) >= MAX_LAYERS):
            return Disk(self.path(disk.image), disk.read_only, immutable=True, layers=layers[:-1], top=layers[-1])
        return Disk(self.path(disk.image), disk.read_only, immutable=True, layers=layers)

    def close(self) -> None:
        """Safe to call again."""
        for opened in (self.files, self.hints):
            while opened:
                os.close(opened.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_saved(folder: Path, *, boot_id: str, what: str) -> Saved:
    """Open what was saved in `folder`; `what` names it in errors. Nothing is ever made up for what is missing.

    A file whose identity is not that of the last check is hashed. Raises `NotFoundError` where there is none,
    `StateError` where a file is missing or altered, or it was made by another format.
    """
    with ExitStack() as stack:
        try:
            manifest = read_manifest(folder)
            files: dict[str, int] = {}
            hints: dict[str, int] = {}
            for name in manifest["files"]:
                files[name] = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                stack.callback(os.close, files[name])
            _verify(folder, manifest, files, boot_id)
            with suppress(FileNotFoundError):
                hints[FIRST_PAGES] = os.open(folder / FIRST_PAGES, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                stack.callback(os.close, hints[FIRST_PAGES])
            saved = Saved(
                folder,
                what,
                Needs.from_document(manifest["needs"]),
                bytes.fromhex(manifest["sentinel"]),
                bytes.fromhex(manifest["schema"]),
                int(manifest["epoch"]),
                tuple(map(SavedDisk.from_document, manifest["disks"])),
                dict(manifest["document"]),
                files,
                hints,
            )
            for disk in saved.saved_disks:
                for file in (disk.image, *disk.layers):
                    saved.path(file)
        except FileNotFoundError as error:
            if not folder.exists():
                raise NotFoundError(f"there is no {what}") from error
            raise StateError(
                f"{what} is not whole: {Path(error.filename).name} is missing", hint="remove it"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(f"{what} can't be read: {error}", hint="remove it") from error
        except _Altered as error:
            raise StateError(f"{what} was altered: {error.message}", hint="remove it, or import it again") from error
        stack.pop_all()
    return saved


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`. Raises `OSError`, and `ValueError` where it is none of this format."""
    manifest = json.loads(_read(folder / "manifest.json"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    for name in manifest["files"]:
        if "/" in name or name.startswith(".") or name.endswith(".json"):
            raise ValueError(f"{name!r} is not a file of a saved VM")
    return manifest


def hash_file(fd: int) -> str:
    """What `files` of a manifest says of a file's content: holes count as zeros."""
    return digest(fd)


def write_json(path: Path, document: Mapping[str, Any]) -> bytes:
    """Write it, in one step, onto the disk; what was written."""
    text = json.dumps(document, indent=1).encode() + b"\n"
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    with temporary.open("wb") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    return text


def remember(folder: Path, files: Mapping[str, int], boot_id: str) -> None:
    """Note that `files` of the saved VM in `folder` are what its manifest says."""
    known = {
        "manifest": hashlib.sha256(_read(folder / "manifest.json")).hexdigest(),
        "files": {name: [*_known_by(name, fd), boot_id] for name, fd in files.items()},
    }
    write_json(folder / "verified.json", known)


class _Altered(FirkinError):
    """A file is not what the manifest says."""


def _verify(folder: Path, manifest: Mapping[str, Any], files: Mapping[str, int], boot_id: str) -> None:
    remembered: dict[str, Any] = {}
    try:
        known = json.loads(_read(folder / "verified.json"))
        if known["manifest"] != hashlib.sha256(_read(folder / "manifest.json")).hexdigest():
            raise _Altered("manifest.json is not what was saved")
        remembered = known["files"]
    except FileNotFoundError:
        pass
    fresh = list(_to_hash(files, remembered, boot_id))
    for name in fresh:
        described = manifest["files"][name]
        if os.fstat(files[name]).st_size != described["bytes"] or hash_file(files[name]) != described["sha256"]:
            raise _Altered(f"{name} is not what was saved")
    if any(name != _ALWAYS_HASHED for name in fresh):
        remember(folder, files, boot_id)


def _to_hash(files: Mapping[str, int], remembered: Mapping[str, Any], boot_id: str) -> Iterator[str]:
    for name, fd in files.items():
        if name == _ALWAYS_HASHED or remembered.get(name) != [*_known_by(name, fd), boot_id]:
            yield name


def _known_by(name: str, fd: int) -> list[int]:
    """A file's identity. Those of disks are linked into other snapshots, which changes their ctime."""
    inode, size, modified, changed = identity(fd)
    return [inode, size, modified] if name.startswith("disk") else [inode, size, modified, changed]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_MANIFEST + 1)
    if len(content) > MAX_MANIFEST:
        raise ValueError(f"{path.name} is too large")
    return content
