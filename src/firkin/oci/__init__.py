"""Images: references, registries, the content store, and the root filesystems made of them."""

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
