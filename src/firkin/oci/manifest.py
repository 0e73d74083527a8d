"""Descriptors, manifests and indexes (OCI descriptor.md, manifest.md, image-index.md; Docker's counterparts)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from firkin.errors import ImageError, InvalidInputError
from firkin.frozen import dataclass
from firkin.oci._json import mapping, number, optional_text, parse_object, text_map
from firkin.oci.media_types import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST, refuse_schema1
from firkin.types.digest import Digest
from firkin.types.platform import Platform

__all__ = ["DEFAULT_LIMITS", "Descriptor", "ImageLimits", "Index", "Manifest", "parse_document"]


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may cost before anything in it is believed. Sizes are in bytes.

    A registry takes manifests up to 4 MiB (Distribution spec, "Pushing Manifests"); Docker stops at 127 layers.
    """

    manifest: int = 4 << 20
    config: int = 8 << 20
    layers: int = 512
    manifests: int = 1024
    layer: int = 64 << 30
    unpacked: int = 256 << 30
    archive: int = 256 << 30
    members: int = 100_000


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: its media type, digest and size in bytes.

    `foreign` is true where it names a platform that Firkin does not know (`platform` is then None).
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=_nothing)
    foreign: bool = False

    @classmethod
    def parse(cls, document: Any) -> Descriptor:
        """Read a descriptor object. A platform that Firkin does not know reads as None. Raises `ImageError`."""
        if not isinstance(document, dict):
            raise ImageError("the image holds a descriptor that is not an object")
        try:
            digest = Digest(optional_text(document, "digest"))
        except InvalidInputError as error:
            raise ImageError("the image holds a descriptor without a valid digest") from error
        named = mapping(document, "platform")
        platform = _platform(named)
        return cls(
            optional_text(document, "mediaType"),
            digest,
            number(document, "size"),
            platform,
            MappingProxyType(text_map(document, "annotations")),
            foreign=bool(named) and platform is None,
        )

    def document(self) -> dict[str, Any]:
        """The descriptor as JSON has it."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.platform is not None:
            platform = {"os": self.platform.os, "architecture": self.platform.architecture}
            document["platform"] = platform | ({"variant": self.platform.variant} if self.platform.variant else {})
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its config and its layers, the lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """Images of one name for several platforms, or an index of such."""

    media_type: str
    manifests: tuple[Descriptor, ...]


def parse_document(content: bytes, media_type: str = "", limits: ImageLimits = DEFAULT_LIMITS) -> Manifest | Index:
    """Read a manifest or an index, told apart by `media_type`, else by what the content says of itself.

    Raises `ImageError` for other documents, for schema 1, and for more entries than `limits` allows.
    """
    if len(content) > limits.manifest:
        raise ImageError(f"a manifest is larger than {limits.manifest} bytes")
    document = parse_object(content, "the image's manifest")
    refuse_schema1(media_type, document)
    own = optional_text(document, "mediaType")
    known = INDEX_TYPES | MANIFEST_TYPES
    if own and media_type in known and own != media_type:
        # OCI image spec, "mediaType": a document that contradicts its transport can be two images at once.
        raise ImageError(f"a manifest says it is {own[:100]}, but was sent as {media_type}")
    kind = media_type if media_type in known else own
    if not kind:
        kind = OCI_INDEX if "manifests" in document else OCI_MANIFEST if "layers" in document else ""
    if kind in INDEX_TYPES and "layers" not in document:
        return Index(kind, _descriptors(document.get("manifests"), limits.manifests, "manifests"))
    if kind in MANIFEST_TYPES and "manifests" not in document:
        layers = _descriptors(document.get("layers"), limits.layers, "layers")
        config = Descriptor.parse(document.get("config"))
        _check_sizes(config, layers, limits)
        return Manifest(kind, config, layers)
    raise ImageError(f"{(kind or media_type or 'the document')[:100]} is not an image's manifest or index")


def _check_sizes(config: Descriptor, layers: tuple[Descriptor, ...], limits: ImageLimits) -> None:
    if config.size > limits.config:
        raise ImageError(f"the image's config is larger than {limits.config} bytes")
    for layer in layers:
        if layer.size > limits.layer:
            raise ImageError(f"a layer of the image is larger than {limits.layer} bytes")


def _descriptors(value: Any, most: int, what: str) -> tuple[Descriptor, ...]:
    if not isinstance(value, list):
        raise ImageError(f"the image's field {what!r} is not a list")
    if len(value) > most:
        raise ImageError(f"the image has {len(value)} {what}, more than {most}")
    return tuple(Descriptor.parse(item) for item in value)


def _platform(document: dict[str, Any]) -> Platform | None:
    if not document:
        return None
    try:
        return Platform(
            optional_text(document, "architecture"), optional_text(document, "variant"), optional_text(document, "os")
        )
    except InvalidInputError:
        return None  # Another system, or `unknown/unknown` of a build's attestation: nothing that can be run.
