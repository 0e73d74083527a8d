"""Layer streams: any way of reading, verified at the end, stopped when abandoned, bounded."""

from __future__ import annotations

import gzip
import io
import threading
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from firkin.errors import ImageError
from firkin.oci.image import Layer
from firkin.oci.layer_stream import LayerStream
from firkin.oci.manifest import Descriptor
from firkin.types.digest import Digest
from tests.oci.builders import LAYER, PACK

CONTENT = b"".join(str(number).encode() for number in range(60_000)) + bytes(100_000)


def layer_of(content: bytes, packing: str) -> tuple[Layer, bytes]:
    packed = PACK[packing](content)
    return Layer(Descriptor(LAYER + packing, Digest.of(packed), len(packed)), Digest.of(content)), packed


@pytest.mark.parametrize("packing", ["", "+gzip", "+zstd"])
@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=8), into=st.booleans())
def test_any_sequence_of_reads_gives_the_content(packing: str, sizes: list[int], into: bool) -> None:
    layer, packed = layer_of(CONTENT, packing)
    read = b""
    with LayerStream(io.BytesIO(packed), layer, limit=1 << 30) as stream:
        for size in sizes:
            if into:
                buffer = bytearray(size)
                read += buffer[: stream.readinto(buffer)]
            else:
                read += stream.read(size)
        read += stream.read()
        stream.verify()
    assert read == CONTENT


@pytest.mark.parametrize("packing", ["+gzip", "+zstd"])
def test_concatenated_members_are_one_layer(packing: str) -> None:
    packed = PACK[packing](CONTENT[:5000]) + PACK[packing](CONTENT[5000:])
    layer = Layer(Descriptor(LAYER + packing, Digest.of(packed), len(packed)), Digest.of(CONTENT))
    with LayerStream(io.BytesIO(packed), layer, limit=1 << 30) as stream:
        assert stream.read() == CONTENT


@pytest.mark.parametrize("packing", ["", "+gzip", "+zstd"])
def test_what_does_not_match_is_refused(packing: str) -> None:
    layer, packed = layer_of(CONTENT, packing)
    other = Digest.of(b"other")
    descriptor = layer.descriptor
    wrong = [
        (replace(layer, descriptor=replace(descriptor, digest=other)), packed, "hashes to"),
        (replace(layer, descriptor=replace(descriptor, size=descriptor.size + 1)), packed, "its descriptor promises"),
        (replace(layer, diff_id=other), packed, "config says"),
        (layer, packed + b"\0", "has .* bytes|damaged"),
        (layer, packed[:-1], "has .* bytes|too early"),
    ]
    for promised, content, match in wrong:
        with (
            LayerStream(io.BytesIO(content), promised, limit=1 << 30) as stream,
            pytest.raises(ImageError, match=match),
        ):
            stream.verify()


@pytest.mark.parametrize("packing", ["+gzip", "+zstd"])
def test_damage_is_an_image_error_and_a_bomb_ends_at_the_limit(packing: str) -> None:
    layer, packed = layer_of(bytes(200 << 20), packing)
    with LayerStream(io.BytesIO(packed), layer, limit=5 << 20) as stream, pytest.raises(ImageError, match="more than"):
        stream.verify()
    assert stream.length <= 6 << 20
    damaged = packed[:20] + b"\xff" * 40 + packed[60:]
    with LayerStream(io.BytesIO(damaged), layer, limit=1 << 30) as stream, pytest.raises(ImageError, match="damaged"):
        stream.verify()


def test_an_abandoned_stream_ends_its_thread() -> None:
    layer, packed = layer_of(bytes(50 << 20), "+gzip")
    before = threading.active_count()
    with LayerStream(io.BytesIO(packed), layer, limit=1 << 30) as stream:
        stream.read(10)
    assert threading.active_count() == before


def test_a_failing_source_is_reported_with_its_cause() -> None:
    class Failing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    layer, _ = layer_of(CONTENT, "")
    with (
        LayerStream(Failing(), layer, limit=1 << 30) as stream,
        pytest.raises(ImageError, match="Input/output") as caught,
    ):
        stream.read(1)
    assert isinstance(caught.value.__cause__, OSError)


def test_large_zstd_windows_are_refused() -> None:
    packed = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28, compression_level=1)
    ).compress(b"x" * 1000)
    # The frame header's window descriptor (RFC 8878, 3.1.1.1.2): no single segment, 256 MiB.
    frame = packed[:4] + bytes([0x00, (28 - 10) << 3]) + packed[6:]
    layer = Layer(Descriptor(LAYER + "+zstd", Digest.of(frame), len(frame)), Digest.of(b"x" * 1000))
    with LayerStream(io.BytesIO(frame), layer, limit=1 << 30) as stream, pytest.raises(ImageError, match="damaged"):
        stream.read()


def test_gzip_accepts_padding_after_its_last_member() -> None:
    packed = gzip.compress(CONTENT) + bytes(512)
    layer = Layer(Descriptor(LAYER + "+gzip", Digest.of(packed), len(packed)), Digest.of(CONTENT))
    with LayerStream(io.BytesIO(packed), layer, limit=1 << 30) as stream:
        assert stream.read() == CONTENT
        stream.verify()
