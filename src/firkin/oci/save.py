"""Writing images out: as an OCI image layout (folder or tar), or as a docker archive that is an OCI layout too."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from firkin.errors import ImageError, ImageNotFoundError
from firkin.oci.content import ContentStore
from firkin.oci.manifest import Descriptor, ImageLimits, Index, parse_document
from firkin.oci.media_types import OCI_INDEX
from firkin.oci.references import Tagged
from firkin.oci.resolve import image_of
from firkin.types.digest import Digest
from firkin.types.platform import Platform

__all__ = ["SaveFormat", "save"]

SaveFormat = Literal["oci-archive", "oci-dir", "docker-archive"]
_CHUNK = 1 << 20


class _Sink(Protocol):
    def document(self, name: str, content: bytes) -> None: ...
    def blob(self, name: str, content: ContentStore, descriptor: Descriptor) -> None: ...


class _TarSink:
    """Members in a tar, without times or owners, so that the same images give the same bytes."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def document(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))

    def blob(self, name: str, content: ContentStore, descriptor: Descriptor) -> None:
        member = tarfile.TarInfo(name)
        member.size = descriptor.size
        with content.open(descriptor.digest) as file:
            checked = _Checked(file, descriptor.digest)
            self._archive.addfile(member, checked)
            checked.verify()


class _FolderSink:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def document(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def blob(self, name: str, content: ContentStore, descriptor: Descriptor) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with content.open(descriptor.digest) as file, path.open("wb") as target:
            checked = _Checked(file, descriptor.digest)
            while chunk := checked.read(_CHUNK):
                target.write(chunk)
            checked.verify()


class _Checked:
    """A blob that is hashed while it is copied: what is damaged is not handed on silently."""

    def __init__(self, file: IO[bytes] | io.FileIO, digest: Digest) -> None:
        self._file = file
        self._digest = digest
        self._state = digest.hasher()

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size) or b""
        self._state.update(data)
        return data

    def verify(self) -> None:
        if self._state.hexdigest() != self._digest.hex:
            raise ImageError(f"{self._digest} is damaged in the image store", hint="remove the image and get it again")


def save(
    content: ContentStore,
    entries: Iterable[Tagged],
    destination: Path | IO[bytes],
    *,
    form: SaveFormat,
    platform: Platform | None,
    limits: ImageLimits,
) -> None:
    """Write the images of `entries` to `destination`, which appears only once it is whole (a stream: as it goes).

    An index is saved whole where all of it is here and no `platform` is asked for; else the one image that fits. Raises
    `ImageError`.
    """
    chosen = [replace(entry, target=_target(content, entry, form, platform, limits)) for entry in entries]
    try:
        if form == "oci-dir":
            if not isinstance(destination, Path):
                raise ImageError("a layout folder can't be written to a stream", hint="use oci-archive")
            _save_folder(content, chosen, destination, limits)
        elif isinstance(destination, Path):
            temporary = destination.with_name(f".{destination.name}.{os.urandom(4).hex()}")
            try:
                with temporary.open("xb") as file:
                    _save_tar(content, chosen, file, form, limits)
                temporary.rename(destination)
            finally:
                temporary.unlink(missing_ok=True)
        else:
            _save_tar(content, chosen, destination, form, limits)
    except OSError as error:
        where = destination if isinstance(destination, Path) else "the output"
        raise ImageError(f"can't save the image to {where}: {error.strerror or error}") from error


def _target(
    content: ContentStore, entry: Tagged, form: SaveFormat, platform: Platform | None, limits: ImageLimits
) -> Descriptor:
    if form != "docker-archive" and platform is None:
        blobs = list(_below(content, entry.target, limits))
        if all(content.has(blob.digest) for blob in blobs):
            return replace(entry.target, annotations={}, platform=None)
    image = image_of(content, entry.target, platform, entry.reference, limits)
    return Descriptor(image.media_type, image.digest, content.size(image.digest), image.platform)


def _below(content: ContentStore, target: Descriptor, limits: ImageLimits) -> Iterable[Descriptor]:
    """`target` and every descriptor below it, whether its content is here or not."""
    yield target
    if not content.has(target.digest):
        return
    document = parse_document(content.read(target.digest, limits.manifest), target.media_type, limits)
    if isinstance(document, Index):
        for child in document.manifests:
            yield from _below(content, child, limits)
    else:
        yield document.config
        yield from document.layers


def _save_folder(content: ContentStore, entries: list[Tagged], folder: Path, limits: ImageLimits) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise ImageError(f"{folder} is not empty", hint="give a new folder")
    temporary = folder.with_name(f".{folder.name}.{os.urandom(4).hex()}")
    try:
        _write_layout(content, entries, _FolderSink(temporary), limits)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        if temporary.exists():
            import shutil

            shutil.rmtree(temporary)


def _save_tar(
    content: ContentStore, entries: list[Tagged], file: IO[bytes], form: SaveFormat, limits: ImageLimits
) -> None:
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as archive:
        sink = _TarSink(archive)
        _write_layout(content, entries, sink, limits)
        if form == "docker-archive":
            sink.document("manifest.json", _encode(_docker_manifest(content, entries, limits)))


def _write_layout(content: ContentStore, entries: list[Tagged], sink: _Sink, limits: ImageLimits) -> None:
    sink.document("oci-layout", _encode({"imageLayoutVersion": "1.0.0"}))
    manifests = []
    for entry in entries:
        names = {}
        if entry.reference is not None:
            name = entry.reference.canonical()
            names = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
        manifests.append(replace(entry.target, annotations=names).document())
    sink.document("index.json", _encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}))
    written: set[Digest] = set()
    for entry in entries:
        for descriptor in _below(content, entry.target, limits):
            if descriptor.digest not in written:
                if not content.has(descriptor.digest):
                    raise ImageNotFoundError(f"the blob {descriptor.digest} is missing", hint="get the image again")
                written.add(descriptor.digest)
                sink.blob(f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}", content, descriptor)


def _docker_manifest(content: ContentStore, entries: list[Tagged], limits: ImageLimits) -> list[dict[str, Any]]:
    images: dict[Digest, dict[str, Any]] = {}
    for entry in entries:
        image = image_of(content, entry.target, None, None, limits)
        item = images.setdefault(
            image.digest,
            {
                "Config": f"blobs/{image.image_id.algorithm}/{image.image_id.hex}",
                "RepoTags": [],
                "Layers": [
                    f"blobs/{layer.descriptor.digest.algorithm}/{layer.descriptor.digest.hex}" for layer in image.layers
                ],
            },
        )
        if entry.reference is not None and entry.reference.tag:
            item["RepoTags"].append(f"{entry.reference.name}:{entry.reference.tag}")
    return list(images.values())


def _encode(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
