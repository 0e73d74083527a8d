"""Media types of manifests, indexes, configs and layers: OCI's (media-types.md) and Docker's (manifest-v2-2.md)."""

from __future__ import annotations

from firkin.errors import ImageError

__all__ = [
    "CONFIG_TYPES",
    "INDEX_TYPES",
    "MANIFEST_TYPES",
    "OCI_CONFIG",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_MANIFEST",
    "layer_compression",
    "refuse_schema1",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+"

INDEX_TYPES = frozenset({OCI_INDEX, _DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, _DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, _DOCKER_CONFIG})

_LAYERS = {
    OCI_LAYER: "tar",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}


def layer_compression(media_type: str) -> str:
    """`tar`, `gzip` or `zstd`: how a layer of this media type is packed. Raises `ImageError` for others."""
    try:
        return _LAYERS[media_type]
    except KeyError:
        what = "encrypted layer" if media_type.endswith("+encrypted") else "layer of an unknown type"
        raise ImageError(f"the image has an {what}: {media_type[:100]}", hint="not a container image?") from None


def refuse_schema1(media_type: str, document: dict[str, object]) -> None:
    """Raise `ImageError` for Docker's manifest schema 1, whether its media type or its content says so."""
    if media_type.startswith(_SCHEMA1) or document.get("schemaVersion") == 1:
        raise ImageError(
            "the image has a Docker manifest of schema 1, which is obsolete and not supported",
            hint="rebuild it, or convert it with `skopeo copy --format oci`",
        )
