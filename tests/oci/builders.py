"""Images made in memory, for tests: layers, OCI layouts, docker archives, and a writer that stands in for ext4."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import zstandard

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
PACK = {"": lambda data: data, "+gzip": lambda data: gzip.compress(data, mtime=0), "+zstd": zstandard.compress}


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of regular files, in order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def tar_of(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar of members made by hand."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Layout:
    """An OCI image layout in memory: blobs by digest, and the entries of its index."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.entries: list[dict[str, Any]] = []

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[sha256(content)] = content
        return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}

    def image(
        self,
        *layers: Mapping[str, bytes],
        packing: str = "",
        architecture: str = "amd64",
        variant: str = "",
        **config: Any,
    ) -> dict[str, Any]:
        """Add an image and return its manifest's descriptor (with the platform)."""
        tars = [layer_tar(layer) for layer in layers]
        document: dict[str, Any] = {
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
        }
        platform = {"os": "linux", "architecture": architecture}
        if variant:
            document["variant"] = platform["variant"] = variant
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(document).encode(), CONFIG),
            "layers": [self.blob(PACK[packing](tar), LAYER + packing) for tar in tars],
        }
        return self.blob(json.dumps(manifest).encode(), MANIFEST) | {"platform": platform}

    def index(self, *manifests: dict[str, Any]) -> dict[str, Any]:
        """Add an index of images."""
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        return self.blob(json.dumps(document).encode(), INDEX)

    def name(self, name: str | None, target: dict[str, Any]) -> Layout:
        """Let the layout's index point at `target`, by `name`."""
        annotations = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        self.entries.append({**target, **annotations})
        return self

    def documents(self) -> dict[str, bytes]:
        """Every file of the layout by its path."""
        files = {f"blobs/{digest.replace(':', '/')}": content for digest, content in self.blobs.items()}
        files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
        files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode()
        return files

    def write(self, folder: Path) -> Path:
        """Write the layout as a folder."""
        for name, content in self.documents().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def tar(self) -> bytes:
        """The layout as a tar."""
        return layer_tar(self.documents())


def docker_archive(tags: list[str], *layers: bytes, diff_ids: list[str] | None = None) -> dict[str, bytes]:
    """The files of a docker archive in its old form: `<n>/layer.tar`, `config.json`, `manifest.json`."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids or [sha256(layer) for layer in layers]},
    }
    manifest = [{"Config": "config.json", "RepoTags": tags, "Layers": names}]
    return {
        **dict(zip(names, layers, strict=True)),
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }


class Concatenated:
    """Stands in for the ext4 writer: writes the layers' tars one after another and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, layers: Iterable[Any], destination: Path, *, size: int) -> None:
        self.calls += 1
        with destination.open("xb") as file:
            for layer in layers:
                while chunk := layer.read(1 << 16):
                    file.write(chunk)
