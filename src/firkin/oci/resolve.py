"""From what a user typed to one image of the store: short names, digests, ids, platforms."""

from __future__ import annotations

import re
from collections.abc import Iterator

from firkin.errors import ImageError, ImageNotFoundError, InvalidInputError
from firkin.oci.config import ImageConfig
from firkin.oci.content import ContentStore
from firkin.oci.image import Image, Layer
from firkin.oci.manifest import DEFAULT_LIMITS, Descriptor, ImageLimits, Index, Manifest, parse_document
from firkin.oci.references import ReferenceStore, Tagged
from firkin.types.platform import Platform
from firkin.types.reference import Reference, has_registry

__all__ = ["candidates", "find", "image_of", "is_id", "local_reference", "manifests_of", "missing", "select"]

_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}\Z")
_DEPTH_MAX = 4


def candidates(text: str) -> list[Reference]:
    """The references that `text` may mean, the likeliest first, as Podman has it: `localhost/` before `docker.io/`."""
    full = Reference.parse(text)
    if has_registry(text):
        return [full]
    return [Reference.parse(text, default_registry="localhost"), full]


def local_reference(text: str) -> Reference:
    """The name that a new local image gets for `text`: below `localhost/` where no registry is named."""
    return candidates(text)[0]


def is_id(text: str) -> bool:
    """Whether `text` has the form of an image's id or digest: 12 or more hexadecimal digits."""
    return bool(_ID.match(text))


def find(names: ReferenceStore, content: ContentStore, wanted: Reference | str) -> Tagged | None:
    """The record of the image that `wanted` names: a name first, then the only name that ends so, then an id."""
    if isinstance(wanted, Reference):
        return names.get(wanted)
    if not wanted.startswith("sha256:"):
        options = candidates(wanted)
        for reference in options:
            if found := names.get(reference):
                return found
        if len(options) > 1 and (found := _by_ending(names, options[0])):
            return found
    return _by_id(names, content, wanted.removeprefix("sha256:")) if is_id(wanted) else None


def _by_ending(names: ReferenceStore, wanted: Reference) -> Tagged | None:
    ending = "/" + wanted.repository
    found = [
        entry
        for entry in names
        if entry.reference is not None
        and ("/" + entry.reference.repository).endswith(ending)
        and (entry.reference.tag == wanted.tag if wanted.digest is None else entry.target.digest == wanted.digest)
    ]
    if len({entry.target.digest for entry in found}) > 1:
        options = ", ".join(str(entry.reference) for entry in found[:5])
        raise ImageError(f"the short name {wanted.repository} is ambiguous", hint=f"one of {options}")
    return found[0] if found else None


def _by_id(names: ReferenceStore, content: ContentStore, prefix: str) -> Tagged | None:
    found = {}
    for entry in names:
        for descriptor, manifest in manifests_of(content, entry.target):
            if entry.target.digest.hex.startswith(prefix):
                found[entry.target.digest] = entry
            elif any(digest.hex.startswith(prefix) for digest in (descriptor.digest, manifest.config.digest)):
                # Narrowed to the one manifest, so that its platform is the one that was asked for.
                found.setdefault(descriptor.digest, Tagged(entry.reference, descriptor, entry.updated))
    if len(found) > 1:
        raise ImageError(f"the image id {prefix} is ambiguous", hint="give more digits, or a name")
    return next(iter(found.values()), None)


def manifests_of(
    content: ContentStore,
    target: Descriptor,
    limits: ImageLimits = DEFAULT_LIMITS,
    depth: int = 0,
) -> Iterator[tuple[Descriptor, Manifest]]:
    """Every manifest below `target` that is in the store. Raises `ImageError`."""
    if depth > _DEPTH_MAX:
        raise ImageError(f"an image index is nested deeper than {_DEPTH_MAX}")
    document = parse_document(content.read(target.digest, limits.manifest), target.media_type, limits)
    if isinstance(document, Manifest):
        yield target, document
        return
    for descriptor in document.manifests:
        if content.has(descriptor.digest):
            yield from manifests_of(content, descriptor, limits, depth + 1)


def select(index: Index, platform: Platform | None) -> Descriptor:
    """The entry of `index` for `platform` (None: this host's; else the only one there is).

    Raises `ImageNotFoundError` naming what there is.
    """
    usable = [entry for entry in index.manifests if not entry.foreign]
    plain = [entry for entry in usable if entry.platform is not None]
    position = (platform or Platform.current()).best([entry.platform for entry in plain if entry.platform])
    if position is not None:
        return plain[position]
    if len(usable) == 1 and (platform is None or usable[0].platform is None):
        return usable[0]
    offered = ", ".join(sorted({str(entry.platform) for entry in plain})) or "none that Firkin knows"
    raise ImageNotFoundError(
        f"the image is not made for {platform or Platform.current()}", hint=f"--platform; it offers {offered}"
    )


def image_of(
    content: ContentStore,
    target: Descriptor,
    platform: Platform | None,
    reference: Reference | None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Image:
    """The image below `target` for `platform`, its manifest and config read and verified.

    Raises `ImageNotFoundError`, `ImageError`.
    """
    document = parse_document(content.read(target.digest, limits.manifest), target.media_type, limits)
    depth = 0
    while isinstance(document, Index):
        present = Index(document.media_type, tuple(entry for entry in document.manifests if content.has(entry.digest)))
        target = select(present if present.manifests else document, platform)
        depth += 1
        if depth > _DEPTH_MAX:
            raise ImageError(f"an image index is nested deeper than {_DEPTH_MAX}")
        document = parse_document(content.read(target.digest, limits.manifest), target.media_type, limits)
    config = ImageConfig.parse(content.read(document.config.digest, limits.config))
    if len(config.diff_ids) != len(document.layers):
        raise ImageError(
            f"the image has {len(document.layers)} layers, but its config lists {len(config.diff_ids)} diff_ids"
        )
    found = config.platform
    if platform is not None and not platform.runs(found):
        raise ImageNotFoundError(f"the image is for {found}, not for {platform}", hint=f"--platform {found}")
    return Image(
        reference=reference,
        digest=target.digest,
        platform=found,
        config=config,
        layers=tuple(Layer(*pair) for pair in zip(document.layers, config.diff_ids, strict=True)),
        image_id=document.config.digest,
        media_type=document.media_type,
        size=target.size + document.config.size + sum(layer.size for layer in document.layers),
    )


def missing(wanted: Reference | str) -> ImageNotFoundError:
    """The error for an image that is not here."""
    try:
        shown = str(wanted) if isinstance(wanted, Reference) else Reference.parse(wanted).familiar()
    except InvalidInputError:
        shown = str(wanted)
    return ImageNotFoundError(f"no image {shown} in the store", hint="firkin image pull, or firkin image load")
