"""What a container's root can be made of, and putting it at a path of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from firkin.errors import ImageError, InvalidInputError
from firkin.frozen import dataclass
from firkin.oci.copying import Method, copy_content

if TYPE_CHECKING:
    from firkin.oci.image import Image
    from firkin.oci.store import ImageStore

__all__ = [
    "Ext4Image",
    "OciBundle",
    "RawBlock",
    "Rootfs",
    "StageReport",
    "snapshot_rootfs",
    "stage_file",
    "stage_restored_rootfs_to",
    "stage_rootfs_to",
]

_DEFAULT_DISK = 16 << 30


class Rootfs:
    """One of three kinds: an image of the store, an ext4 image file, or a raw block device or file with any
    filesystem.
    """

    @staticmethod
    def oci_bundle(image: Image, size: int = _DEFAULT_DISK) -> OciBundle:
        """The root filesystem of an OCI image, converted to ext4 with `size` bytes virtual."""
        return OciBundle(image, size)

    @staticmethod
    def ext4_image(path: Path | str) -> Ext4Image:
        """An ext4 image file. It is never written: a container gets its own overlay."""
        return Ext4Image(_existing(path))

    @staticmethod
    def raw_block(path: Path | str) -> RawBlock:
        """A block device or a raw file, handed to the VM as it is."""
        return RawBlock(_existing(path))


@dataclass(frozen=True, slots=True)
class OciBundle(Rootfs):
    """An image of the store; `size` is the virtual size of its ext4 image in bytes."""

    image: Image
    size: int = _DEFAULT_DISK


@dataclass(frozen=True, slots=True)
class Ext4Image(Rootfs):
    """An ext4 image file."""

    path: Path


@dataclass(frozen=True, slots=True)
class RawBlock(Rootfs):
    """A raw disk."""

    path: Path


@dataclass(frozen=True, slots=True)
class StageReport:
    """How a root filesystem got to `path`: `clone` shares its blocks (FICLONE), `copy` does not.

    `bytes` is the source's length, `seconds` the time it took.
    """

    path: Path
    method: Method
    bytes: int
    seconds: float


def stage_rootfs_to(rootfs: Rootfs, destination: Path, *, store: ImageStore) -> StageReport:
    """Put a private, writable ext4 image of `rootfs` at `destination`; it appears there only once it is whole.

    Raises `ImageError` where it can't be read, converted or written. Raises `InvalidInputError`.
    """
    if isinstance(rootfs, OciBundle):
        with store.rootfs(rootfs.image, rootfs.size) as lease:
            return stage_file(lease.path, destination)
    if isinstance(rootfs, Ext4Image | RawBlock):
        return stage_file(rootfs.path, destination)
    raise InvalidInputError(f"{type(rootfs).__name__} is not a kind of root filesystem", value=rootfs)


def snapshot_rootfs(folder: Path, container_id: str) -> Path:
    """Where a snapshot in `folder` keeps the root filesystem of its container."""
    return folder / f"{container_id}-rootfs.ext4"


def stage_restored_rootfs_to(folder: Path, container_id: str, destination: Path) -> StageReport:
    """Stage the root filesystem that a snapshot kept, whatever the container was first made of. Raises `ImageError`."""
    return stage_file(snapshot_rootfs(folder, container_id), destination)


def stage_file(source: Path, destination: Path) -> StageReport:
    """Clone `source` to `destination`, or copy it, holes kept. Raises `ImageError`."""
    started = time.monotonic()
    temporary = destination.with_name(f".{destination.name}.{os.urandom(4).hex()}")
    try:
        with source.open("rb") as reader, temporary.open("xb") as writer:
            length = reader.seek(0, os.SEEK_END)
            method = copy_content(reader.fileno(), writer.fileno(), length)
        temporary.rename(destination)
    except OSError as error:
        raise ImageError(
            f"can't stage the root filesystem {source.name}: {error.strerror}", hint=f"to {destination}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return StageReport(destination, method, length, time.monotonic() - started)


def _existing(path: Path | str) -> Path:
    found = Path(path).absolute()
    if not found.exists():
        raise InvalidInputError(f"there is no root filesystem at {found}", value=path)
    return found
