"""Unpacking layers: gzip by `isal`, zstd by `zstandard`, both with bounded memory and output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Protocol, cast

from firkin.errors import ImageError

__all__ = ["Source", "compression_of", "unpack"]

_CHUNK = 1 << 20
_ZSTD_WINDOW_MAX = 128 << 20  # `zstd --ultra -22` needs no more (RFC 8878, 3.1.1.1.2, asks for 8 MiB at least)
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}


class Source(Protocol):
    """Where packed bytes come from: up to `limit` bytes a call, none at the end."""

    def read(self, limit: int, /) -> bytes:
        """At most `limit` bytes."""


def compression_of(start: bytes) -> str:
    """`tar`, `gzip` or `zstd`, told by a file's first bytes. Raises `ImageError` for another compression."""
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            if name not in ("gzip", "zstd"):
                raise ImageError(f"{name} is not a compression that images use", hint="unpack it, or use gzip or zstd")
            return name
    return "tar"


def unpack(source: Source, compression: str) -> Iterator[bytes]:
    """The unpacked bytes of `source`, in chunks of at most 1 MiB. Raises `ImageError` where the stream is damaged.

    Concatenated gzip members and zstd frames are read on; zeros after the last gzip member are padding.
    """
    if compression == "tar":
        return _plain(source)
    return _gzip(source) if compression == "gzip" else _zstd(source)


def _plain(source: Source) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk


def _gzip(source: Source) -> Iterator[bytes]:
    from isal import igzip_lib

    damaged = cast(type[Exception], igzip_lib.IsalError)  # its stub says it is an instance
    packed = b""
    member = None
    while True:
        if not packed:
            packed = source.read(_CHUNK)
        if member is None:
            packed = packed.lstrip(b"\0") if member is None else packed
            if not packed:
                rest = source.read(_CHUNK)
                if not rest:
                    return
                packed = rest
                continue
            member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        if not packed and member.needs_input:
            raise ImageError("a gzip layer ends too early", hint="the image was damaged on its way; try again")
        try:
            chunk = member.decompress(packed, _CHUNK)
        except damaged as error:
            raise ImageError(f"a gzip layer is damaged: {error}") from error
        packed = b""
        if chunk:
            yield chunk
        if member.eof:
            packed, member = member.unused_data, None


def _zstd(source: Source) -> Iterator[bytes]:
    import zstandard

    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    reader = context.stream_reader(cast(IO[bytes], _Counted(source)), read_size=_CHUNK, read_across_frames=True)
    try:
        while chunk := reader.read(_CHUNK):
            yield chunk
    except zstandard.ZstdError as error:
        raise ImageError(f"a zstd layer is damaged: {error}") from error


class _Counted:
    """`zstandard` wants an object with `read(size)` and nothing more."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        return self._source.read(_CHUNK if size < 0 else size)
