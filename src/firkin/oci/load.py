"""Loading images from an OCI image layout or a docker archive, as a folder or a tar (gzip and zstd too).

A tar is read once, front to back, so that a pipe will do. Nothing in it becomes a path on this host: members are
known by name only, links between them are looked up among the names.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

from firkin import faults
from firkin.errors import ImageError, InvalidInputError
from firkin.oci._json import optional_text, parse_object, text_list
from firkin.oci.archive import members, opened
from firkin.oci.compression import compression_of
from firkin.oci.config import ImageConfig
from firkin.oci.content import ContentStore
from firkin.oci.lease import Lease
from firkin.oci.manifest import Descriptor, ImageLimits, Index, Manifest, parse_document
from firkin.oci.media_types import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from firkin.oci.references import ReferenceStore
from firkin.oci.resolve import local_reference
from firkin.types.digest import Digest
from firkin.types.reference import Reference, has_registry

__all__ = ["load", "store_manifest"]

_BLOBS = faults.declare("oci.load.blobs", "every blob of a loaded image is stored, no name points at it")
_NAMED = faults.declare("oci.load.named", "one of several loaded images has its name")

_CHUNK = 1 << 20
_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_LAYER_TYPES = {"tar": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}

Entries = list[tuple[Reference | None, Descriptor]]


@dataclass(slots=True)
class _Gathered:
    """What one pass over an archive found: blobs by their names in it, small documents, and links between names."""

    blobs: dict[str, tuple[Digest, int]] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        name = _normal(name)
        for _ in range(8):
            if name in self.blobs or name not in self.links:
                break
            name = self.links[name]
        return name


def load(
    content: ContentStore, names: ReferenceStore, path: Path | BinaryIO, *, stem: str, limits: ImageLimits
) -> Entries:
    """Load every image of `path`; return names and targets. A bare tag in a layout becomes `localhost/stem:tag`.

    Raises `ImageError` for what is not an image, is damaged, or passes `limits`; nothing is then named.
    """
    with Lease(content.root) as lease:
        if isinstance(path, Path) and path.is_dir():
            entries = _load_folder(content, lease, path, stem, limits)
        else:
            with opened(path) as file:
                entries = _load_archive(content, lease, file, stem, limits)
        if not entries:
            raise ImageError("the archive holds no image")
        faults.point(_BLOBS)
        for reference, target in entries:
            names.set(reference, target)
            faults.point(_NAMED)
    return entries


def _load_folder(content: ContentStore, lease: Lease, folder: Path, stem: str, limits: ImageLimits) -> Entries:
    index = _read_document(folder / "index.json", limits.manifest)

    def fetch(descriptor: Descriptor) -> bool:
        return _copy_blob(content, lease, folder, descriptor)

    return _layout_entries(content, index, fetch, stem, limits)


def _layout_entries(
    content: ContentStore, index: bytes, fetch: Callable[[Descriptor], bool], stem: str, limits: ImageLimits
) -> Entries:
    document = parse_document(index, "", limits)
    if not isinstance(document, Index):
        raise ImageError("index.json is not an image index")
    entries: Entries = []
    for descriptor in document.manifests:
        if store_manifest(content, descriptor, fetch, limits, whole=True):
            entries.append((_layout_name(descriptor, stem), descriptor))
    return entries


def store_manifest(
    content: ContentStore,
    descriptor: Descriptor,
    fetch: Callable[[Descriptor], bool],
    limits: ImageLimits,
    *,
    whole: bool,
    depth: int = 0,
) -> bool:
    """Fetch what `descriptor` points at, and all below it. False where it is no image and may be left out.

    `fetch` puts one blob into the store and says whether it was there to be had. Parts of an index may be missing, as
    in a layout that holds one platform only; parts of a manifest may not. `whole` is whether `descriptor` itself must
    be there. Raises `ImageError`.
    """
    if depth > 4:
        raise ImageError("an image index is nested too deep")
    if descriptor.size > limits.manifest:
        raise ImageError(f"a manifest is larger than {limits.manifest} bytes")
    if not fetch(descriptor):
        if whole:
            raise ImageError(f"the manifest {descriptor.digest} is missing")
        return False
    document = parse_document(content.read(descriptor.digest, limits.manifest), descriptor.media_type, limits)
    if isinstance(document, Manifest):
        if not _is_image(document):
            return False
        for part in (document.config, *document.layers):
            if not fetch(part):
                raise ImageError(f"the image's blob {part.digest} is missing")
        _check_config(content, document, limits)
        return True
    found = [
        store_manifest(content, child, fetch, limits, whole=False, depth=depth + 1) for child in document.manifests
    ]
    if not any(found):
        raise ImageError("the index holds no image that is here")
    return True


def _is_image(manifest: Manifest) -> bool:
    # An artifact (signature, chart, attestation) is a manifest too; its layers are no file systems.
    return all("tar" in layer.media_type for layer in manifest.layers)


def _check_config(content: ContentStore, manifest: Manifest, limits: ImageLimits) -> None:
    config = ImageConfig.parse(content.read(manifest.config.digest, limits.config))
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageError(f"the image has {len(manifest.layers)} layers, but {len(config.diff_ids)} diff_ids")


def _copy_blob(content: ContentStore, lease: Lease, folder: Path, descriptor: Descriptor) -> bool:
    digest = descriptor.digest
    lease.hold(digest)
    if content.has(digest):
        return True
    try:
        # A pipe or device in place of a blob must not stall or feed us.
        opened = os.open(folder / "blobs" / digest.algorithm / digest.hex, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    with os.fdopen(opened, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise ImageError(f"the blob {digest} is not a regular file")
        writer = content.ingest(digest, descriptor.size)
        if writer is not None:
            with writer:
                writer.restart()
                while chunk := file.read(_CHUNK):
                    writer.write(chunk)
                writer.commit()
    return True


def _layout_name(descriptor: Descriptor, stem: str) -> Reference | None:
    full = descriptor.annotations.get(_CONTAINERD_NAME)
    name = full or descriptor.annotations.get(_REF_NAME)
    if not name:
        return None
    try:
        if full or has_registry(name) or "/" in name or ":" in name:
            return Reference.parse(name) if full else local_reference(name)
        return Reference.parse(f"localhost/{stem}:{name}")
    except InvalidInputError as error:
        raise ImageError(f"the layout names an image {name[:100]!r}, which is not a valid reference") from error


def _load_archive(content: ContentStore, lease: Lease, file: IO[bytes], stem: str, limits: ImageLimits) -> Entries:
    gathered = _Gathered()
    for member, stream in members(file, limits):
        name = _normal(member.name)
        if member.issym():
            gathered.links[name] = _normal(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            gathered.links[name] = _normal(member.linkname)
        elif stream is not None:
            _gather(content, lease, gathered, name, member, stream, limits)
    if "index.json" in gathered.documents and "oci-layout" in gathered.documents:

        def fetch(descriptor: Descriptor) -> bool:
            lease.hold(descriptor.digest)
            return content.has(descriptor.digest)

        return _layout_entries(content, gathered.documents["index.json"], fetch, stem, limits)
    if "manifest.json" in gathered.documents:
        return _docker_entries(content, lease, gathered, limits)
    raise ImageError("this is neither an OCI image layout nor a docker archive", hint="for a root filesystem: import")


def _gather(
    content: ContentStore,
    lease: Lease,
    gathered: _Gathered,
    name: str,
    member: tarfile.TarInfo,
    stream: IO[bytes],
    limits: ImageLimits,
) -> None:
    if name in ("index.json", "oci-layout", "manifest.json"):
        if member.size > limits.manifest:
            raise ImageError(f"{name} is larger than {limits.manifest} bytes")
        gathered.documents[name] = stream.read()
        return
    digest = _blob_name(name)
    if digest is not None:
        lease.hold(digest)
    writer = content.ingest(digest, member.size)
    if writer is None:
        assert digest is not None
        gathered.blobs[name] = (digest, member.size)
        return
    with writer:
        writer.restart()
        while chunk := stream.read(_CHUNK):
            writer.write(chunk)
        lease.hold(writer.digest)
        gathered.blobs[name] = (writer.commit(), member.size)


def _blob_name(name: str) -> Digest | None:
    parts = name.split("/")
    if len(parts) == 3 and parts[0] == "blobs":
        with contextlib.suppress(InvalidInputError):
            return Digest(f"{parts[1]}:{parts[2]}")
    return None


def _docker_entries(content: ContentStore, lease: Lease, gathered: _Gathered, limits: ImageLimits) -> Entries:
    try:
        listed = json.loads(gathered.documents["manifest.json"])
    except (ValueError, RecursionError) as error:
        raise ImageError("manifest.json is not JSON") from error
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise ImageError("manifest.json is not a list of images")
    if len(listed) > limits.manifests:
        raise ImageError(f"the archive holds more than {limits.manifests} images")
    entries: Entries = []
    for item in listed:
        target = _docker_manifest(content, lease, gathered, item, limits)
        tags = text_list(item, "RepoTags")
        try:
            entries.extend((Reference.parse(tag), target) for tag in tags)
        except InvalidInputError as error:
            raise ImageError("the archive names an image by an invalid reference") from error
        if not tags:
            entries.append((None, target))
    return entries


def _docker_manifest(
    content: ContentStore, lease: Lease, gathered: _Gathered, item: dict[str, Any], limits: ImageLimits
) -> Descriptor:
    config_digest, config_size = _blob(gathered, optional_text(item, "Config"))
    config = ImageConfig.parse(content.read(config_digest, limits.config))
    layers = [_blob(gathered, name) for name in text_list(item, "Layers")]
    if len(layers) != len(config.diff_ids):
        raise ImageError(f"the image has {len(layers)} layers, but its config lists {len(config.diff_ids)} diff_ids")
    descriptors = []
    for (digest, size), diff_id in zip(layers, config.diff_ids, strict=True):
        compression = compression_of(_start(content, digest))
        if compression == "tar" and digest != diff_id:
            raise ImageError(f"a layer hashes to {digest}, the image's config says {diff_id}")
        descriptors.append(Descriptor(_LAYER_TYPES[compression], digest, size))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, config_digest, config_size).document(),
        "layers": [descriptor.document() for descriptor in descriptors],
    }
    encoded = json.dumps(manifest, separators=(",", ":")).encode()
    digest = Digest.of(encoded)
    lease.hold(digest)
    content.put(encoded, digest)
    return Descriptor(OCI_MANIFEST, digest, len(encoded))


def _blob(gathered: _Gathered, name: str) -> tuple[Digest, int]:
    found = gathered.blobs.get(gathered.resolve(name))
    if found is None:
        raise ImageError(f"the archive's manifest names {name[:100]!r}, which is not in it")
    return found


def _start(content: ContentStore, digest: Digest) -> bytes:
    with content.open(digest) as file:
        return file.read(8)


def _normal(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")


def _read_document(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            found = file.read(limit + 1)
    except OSError as error:
        raise ImageError(
            f"{path.parent} is not an OCI image layout: {error.strerror}", hint="it has no index.json"
        ) from error
    if len(found) > limit:
        raise ImageError(f"{path.name} is larger than {limit} bytes")
    parse_object(found, path.name)
    return found
