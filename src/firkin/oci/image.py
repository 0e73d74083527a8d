"""An image of the store, resolved for one platform."""

from __future__ import annotations

import hashlib

from firkin.frozen import dataclass
from firkin.oci.config import ImageConfig
from firkin.oci.manifest import Descriptor
from firkin.oci.media_types import layer_compression
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.reference import Reference

__all__ = ["Image", "Layer"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its blob, and the digest of its uncompressed tar (`diff_id`)."""

    descriptor: Descriptor
    diff_id: Digest

    @property
    def compression(self) -> str:
        """How the blob is packed: `tar`, `gzip` or `zstd`. Raises `ImageError` for an unknown media type."""
        return layer_compression(self.descriptor.media_type)


@dataclass(frozen=True, slots=True)
class Image:
    """What a name stood for when it was resolved; never changes.

    `digest` is the manifest's, `image_id` the config's. `size` is that of all its blobs, in bytes.
    """

    reference: Reference | None
    digest: Digest
    platform: Platform
    config: ImageConfig
    layers: tuple[Layer, ...]
    image_id: Digest
    media_type: str
    size: int

    @property
    def chain_id(self) -> Digest:
        """One digest for the whole stack of layers (OCI config.md, "Layer ChainID")."""
        chain = ""
        for layer in self.layers:
            link = f"{chain} {layer.diff_id}" if chain else str(layer.diff_id)
            chain = link if not chain else "sha256:" + hashlib.sha256(link.encode()).hexdigest()
        return Digest(chain or "sha256:" + hashlib.sha256(b"").hexdigest())

    def __str__(self) -> str:
        return self.reference.familiar() if self.reference else str(self.digest)
