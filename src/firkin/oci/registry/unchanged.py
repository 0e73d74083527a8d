"""Whether a tag still points at what is here: the commonest end of a pull, told by one request of the standard library.

Importing the registry client costs more than all the rest of such a pull.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from firkin.errors import FirkinError
from firkin.oci.ensure import Pulled
from firkin.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from firkin.oci.registry.settings import RegistrySettings, is_loopback
from firkin.oci.resolve import image_of
from firkin.oci.store import ImageStore
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.reference import Reference

__all__ = ["unchanged"]

_TIMEOUT = 5.0


def unchanged(
    store: ImageStore,
    reference: Reference | str,
    *,
    platform: Platform | None = None,
    convert: int | None = None,
    settings: RegistrySettings | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Pulled | None:
    """The image that `reference` names, if it is here whole (with `convert`: converted) and its tag has not moved.

    None wherever that takes more to find out: no such name here, a login, a proxy, a mirror, a redirect, an error. The
    registry client then finds out, and says what is wrong. Blocks. Raises `InvalidInputError` for what is no reference.
    """
    wanted = Reference.parse(reference) if isinstance(reference, str) else reference
    before = store.names.get(wanted)
    if before is None:
        return None
    digest = wanted.digest or _ask(wanted, settings or RegistrySettings.default(), environ)
    if digest != before.target.digest:
        return None
    try:
        image = image_of(store.content, before.target, platform, wanted, store.limits)
        for blob in (image.image_id, *(layer.descriptor.digest for layer in image.layers)):
            store.content.size(blob)
    except FirkinError:
        return None
    rootfs = None if convert is None else store.rootfs_cache.cached(image, convert)
    return None if rootfs is None and convert is not None else Pulled(image, changed=False, rootfs=rootfs)


def _ask(reference: Reference, settings: RegistrySettings, environ: Mapping[str, str]) -> Digest | None:
    """What the tag points at: a HEAD request (Distribution spec, "Checking if content exists in the registry")."""
    (*mirrors, host) = settings.hosts(reference.registry)
    plain = settings.plain_http(host)
    loopback = is_loopback(host.rpartition(":")[0] or host)
    proxied = settings.proxies and not loopback and any(name.lower().endswith("_proxy") for name in environ)
    if mirrors or proxied:
        return None
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    try:
        if plain:
            connection = HTTPConnection(host, timeout=_TIMEOUT)
        else:
            from firkin.oci.registry.tls import context

            connection = HTTPSConnection(host, timeout=_TIMEOUT, context=context(settings.certificates_of(host)))
        try:
            path = f"/v2/{reference.repository}/manifests/{reference.tag or 'latest'}"
            headers = {"Accept": ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES)), "User-Agent": "firkin"}
            connection.request("HEAD", path, headers=headers)
            response = connection.getresponse()
            return Digest(response.headers.get("docker-content-digest", "")) if response.status == 200 else None
        finally:
            connection.close()
    except (OSError, HTTPException, FirkinError):
        return None
