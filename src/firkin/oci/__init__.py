"""Images: references, registries, the content store, and the root filesystems made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin.lazy import attributes

if TYPE_CHECKING:
    from firkin.oci.config import History, ImageConfig
    from firkin.oci.image import Image, Layer
    from firkin.oci.manifest import Descriptor, ImageLimits
    from firkin.oci.rootfs_cache import RootfsLease
    from firkin.oci.store import DEFAULT_DISK, ImageStore

__all__ = [
    "DEFAULT_DISK",
    "Descriptor",
    "History",
    "Image",
    "ImageConfig",
    "ImageLimits",
    "ImageStore",
    "Layer",
    "RootfsLease",
]

__getattr__ = attributes(
    __name__,
    {
        "DEFAULT_DISK": "store",
        "Descriptor": "manifest",
        "History": "config",
        "Image": "image",
        "ImageConfig": "config",
        "ImageLimits": "manifest",
        "ImageStore": "store",
        "Layer": "image",
        "RootfsLease": "rootfs_cache",
    },
)
