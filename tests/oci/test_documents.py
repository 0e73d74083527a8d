"""Manifests, indexes and configs that anybody may have written: read, or refused as an image's error, never a crash."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firkin.errors import ImageError
from firkin.oci.config import ImageConfig
from firkin.oci.manifest import Descriptor, ImageLimits, Index, Manifest, parse_document
from firkin.types.digest import Digest
from tests.oci.builders import CONFIG, INDEX, LAYER, MANIFEST, sha256

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
BLOB = {"mediaType": CONFIG, "digest": sha256(b"x"), "size": 1}
MANIFESTS: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST, "config": BLOB, "layers": [BLOB]}
INDEXES: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": INDEX,
    "manifests": [{**BLOB, "mediaType": MANIFEST, "platform": {"os": "linux", "architecture": "amd64"}}],
}
CONFIGS: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2024-01-01T00:00:00Z",
    "config": {"Env": ["A=b"], "Cmd": None, "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {}},
    "rootfs": {"type": "layers", "diff_ids": [sha256(b"x")]},
    "history": [{"created_by": "x", "empty_layer": True}],
}


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a document."""
    found = [here] if here else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += paths(inner, (*here, key))
    return found


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any]) -> bytes:
    """The document with some of its values replaced by others, or its bytes cut."""
    changed = json.loads(json.dumps(document))
    for way in draw(st.lists(st.sampled_from(paths(document)), max_size=3)):
        try:
            at = changed
            for key in way[:-1]:
                at = at[key]
            at[way[-1]] = draw(JSON)
        except (KeyError, IndexError, TypeError):
            continue  # An earlier change has taken this part away.
    content = encoded(changed)
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


@settings(deadline=None)
@given(
    content=mutated(MANIFESTS) | mutated(INDEXES) | st.binary(max_size=60) | JSON.map(lambda v: json.dumps(v).encode())
)
def test_any_manifest_is_read_or_refused(content: bytes) -> None:
    for media_type in ("", MANIFEST, INDEX):
        try:
            document = parse_document(content, media_type)
        except ImageError:
            continue
        below = document.manifests if isinstance(document, Index) else (document.config, *document.layers)
        assert all(isinstance(item.digest, Digest) and item.size >= 0 for item in below)


@settings(deadline=None)
@given(content=mutated(CONFIGS) | st.binary(max_size=60))
def test_any_config_is_read_or_refused(content: bytes) -> None:
    try:
        config = ImageConfig.parse(content)
        assert str(config.platform)
    except ImageError:
        return
    assert all(isinstance(item, str) for item in (*config.env, *config.cmd, *config.labels))
    assert ImageConfig.parse(json.dumps(config.document()).encode()) == config


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ImageError, match="not JSON"):
        parse_document(b"[" * 100_000)


def test_a_config_keeps_what_it_says() -> None:
    config = ImageConfig.parse(json.dumps(CONFIGS).encode())
    assert (config.env, config.cmd, config.exposed_ports) == (("A=b",), (), ("80/tcp",))
    assert config.history[0].empty_layer
    assert ImageConfig.parse(json.dumps(config.document()).encode()) == config


def test_kinds_and_limits() -> None:
    manifest = parse_document(json.dumps({**MANIFESTS, "mediaType": None}).encode())
    assert isinstance(manifest, Manifest)
    assert manifest.layers == (Descriptor(CONFIG, Digest(sha256(b"x")), 1),)
    many = {**MANIFESTS, "layers": [{**BLOB, "mediaType": LAYER}] * 600}
    with pytest.raises(ImageError, match="more than 512"):
        parse_document(json.dumps(many).encode())
    with pytest.raises(ImageError, match="larger than 10 bytes"):
        parse_document(json.dumps(MANIFESTS).encode(), limits=ImageLimits(manifest=10))
