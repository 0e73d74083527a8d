"""An image by a policy: what is here is used, or a registry is asked. Imports no HTTP library until one is needed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from firkin.errors import ImageNotFoundError, InvalidInputError
from firkin.frozen import dataclass
from firkin.oci.image import Image
from firkin.oci.rootfs_cache import RootfsLease
from firkin.oci.store import ImageStore
from firkin.types.platform import Platform
from firkin.types.reference import Reference

if TYPE_CHECKING:
    from firkin.oci.registry.client import RegistryClient
    from firkin.oci.registry.progress import Progress

__all__ = ["PullPolicy", "Pulled", "at_hand", "ensure"]

PullPolicy = Literal["always", "missing", "never"]
"""`never` takes the local image only, `missing` pulls where there is none, `always` follows its tag."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pulled image. `changed` is false where the name pointed at it before; `rootfs` is held where it was asked
    for.
    """

    image: Image
    changed: bool
    rootfs: RootfsLease | None = None


def at_hand(
    store: ImageStore,
    reference: Reference | str,
    *,
    policy: PullPolicy = "missing",
    platform: Platform | None = None,
    convert: int | None = None,
) -> Pulled | None:
    """As `ensure`, but None where a registry is to be asked or a root filesystem to be made. Does not wait."""
    image = _local(store, reference, policy, platform)
    rootfs = None if image is None or convert is None else store.rootfs_cache.cached(image, convert)
    return None if image is None or (convert is not None and rootfs is None) else Pulled(image, False, rootfs)


async def ensure(
    store: ImageStore,
    reference: Reference | str,
    *,
    policy: PullPolicy = "missing",
    platform: Platform | None = None,
    convert: int | None = None,
    client: RegistryClient | None = None,
    progress: contextlib.AbstractContextManager[Progress] | None = None,
) -> Pulled:
    """The image that `reference` names, by `policy`.

    With `convert`, a virtual size in bytes, its root filesystem is made too, alongside the download, and held in the
    answer. `progress` is entered where something is to be downloaded, and left before
    the answer. Raises `ImageNotFoundError`, `RegistryError`, `ImageError`.
    """
    if image := _local(store, reference, policy, platform):
        return Pulled(image, changed=False, rootfs=None if convert is None else await _rootfs(store, image, convert))
    if client is None:
        import asyncio

        from firkin.oci.registry.unchanged import unchanged

        found = await asyncio.to_thread(unchanged, store, reference, platform=platform, convert=convert)
        if found is not None:
            return found
    from firkin.oci.registry.pull import pull

    with progress or contextlib.nullcontext() as shown:
        return await pull(store, reference, platform=platform, convert=convert, client=client, progress=shown)


async def _rootfs(store: ImageStore, image: Image, size: int) -> RootfsLease:
    """The root filesystem image: at once where it is cached, else made beside the loop, which has others to serve."""
    if held := store.rootfs_cache.cached(image, size):
        return held
    import asyncio

    return await asyncio.to_thread(store.rootfs, image, size)


def _local(
    store: ImageStore, reference: Reference | str, policy: PullPolicy, platform: Platform | None
) -> Image | None:
    """The image of the store that serves; None where the registry is to be asked."""
    local = _local_only(reference)
    if policy == "always" and not local:
        return None
    try:
        return store.resolve(reference, platform)
    except ImageNotFoundError:
        if policy == "never" or local:
            raise
        return None


def _local_only(reference: Reference | str) -> bool:
    # `localhost/…` without a port is where local names live, not a registry.
    try:
        parsed = Reference.parse(reference) if isinstance(reference, str) else reference
    except InvalidInputError:
        return False
    return parsed.registry == "localhost"
