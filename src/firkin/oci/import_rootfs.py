"""Making an image of one layer from a tar of a root filesystem, as `docker import` does."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, BinaryIO

from firkin.errors import ImageError
from firkin.oci.archive import opened
from firkin.oci.busybox import store_image
from firkin.oci.compression import compression_of, unpack
from firkin.oci.config import History, ImageConfig
from firkin.oci.content import ContentStore, Ingest
from firkin.oci.lease import Lease
from firkin.oci.manifest import Descriptor, ImageLimits
from firkin.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from firkin.oci.references import ReferenceStore
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.reference import Reference

__all__ = ["import_rootfs"]

_TYPES = {"tar": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
_CHUNK = 1 << 20


class _Kept:
    """A source that writes what passes into the store."""

    def __init__(self, file: IO[bytes], writer: Ingest, start: bytes, limit: int) -> None:
        self._file = file
        self._writer = writer
        self._start = start
        self._limit = limit

    def read(self, limit: int, /) -> bytes:
        data = self._start or self._file.read(limit)
        self._start = b""
        if self._writer.offset + len(data) > self._limit:
            raise ImageError(f"the archive is larger than {self._limit} bytes")
        self._writer.write(data)
        return data


def import_rootfs(
    content: ContentStore,
    names: ReferenceStore,
    path: Path | BinaryIO,
    reference: Reference | None,
    *,
    config: ImageConfig,
    platform: Platform,
    message: str,
    limits: ImageLimits,
) -> Descriptor:
    """Store the tar (plain, gzip or zstd) as the only layer of a new image, with `config` for all the rest.

    Raises `ImageError` for what is not a tar. What is in it is judged when it is converted.
    """
    with Lease(content.root) as lease:
        with opened(path) as file:
            start = file.read(8)
            writer = content.ingest(None)
            assert writer is not None
            with writer:
                compression = compression_of(start)
                state = hashlib.sha256()
                kept = _Kept(file, writer, start, limits.layer)
                for chunk in _checked(unpack(kept, compression), limits):
                    state.update(chunk)
                while kept.read(_CHUNK):
                    pass
                lease.hold(writer.digest)
                size = writer.offset
                digest = writer.commit()
        complete = replace(
            config,
            diff_ids=(Digest.from_hash(state),),
            history=(History(created_by="firkin image import", comment=message),),
            architecture=platform.architecture,
            variant=platform.variant,
        )
        layer = Descriptor(_TYPES[compression], digest, size)
        return store_image(content, names, reference, complete, [layer], [])


def _checked(chunks: Iterator[bytes], limits: ImageLimits) -> Iterator[bytes]:
    total, start = 0, b""
    for chunk in chunks:
        if len(start) < tarfile.BLOCKSIZE:
            start += chunk[: tarfile.BLOCKSIZE]
            if len(start) >= tarfile.BLOCKSIZE:
                _check_header(start[: tarfile.BLOCKSIZE])
        total += len(chunk)
        if total > limits.unpacked:
            raise ImageError(f"the archive unpacks to more than {limits.unpacked} bytes")
        yield chunk
    if len(start) < tarfile.BLOCKSIZE:
        raise ImageError("this is not a tar of a root filesystem", hint="it is shorter than one tar header")


def _check_header(block: bytes) -> None:
    if block == bytes(tarfile.BLOCKSIZE):
        return  # An empty tar: an empty root.
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise ImageError("this is not a tar of a root filesystem") from error
