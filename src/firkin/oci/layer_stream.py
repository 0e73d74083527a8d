"""A layer as a stream of its uncompressed tar, unpacked and verified by a thread ahead of its reader."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from firkin.errors import FirkinError, ImageError
from firkin.oci.compression import Source, unpack
from firkin.oci.image import Layer
from firkin.types.digest import Digest

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["LayerStream"]

_AHEAD = 8  # chunks of at most 1 MiB between the thread and the reader


class _Hashed:
    """A source that hashes and counts what passes."""

    def __init__(self, source: Source, state: _Hash) -> None:
        self._source = source
        self.state = state
        self.count = 0

    def read(self, limit: int, /) -> bytes:
        data = self._source.read(limit)
        self.state.update(data)
        self.count += len(data)
        return data


class LayerStream:
    """The uncompressed tar of `layer`, read from `source`; a context manager.

    `read` and `readinto` work as those of a `BufferedReader`: short only at the end. `verify` reads to the end and
    checks digest, size and diff_id; until then nothing that was read may be believed. `limit` bounds the unpacked
    bytes. Reading raises `ImageError` where the stream is damaged or too long.
    """

    def __init__(self, source: Source, layer: Layer, *, limit: int) -> None:
        self._layer = layer
        self._limit = limit
        self.length = 0  # unpacked bytes so far
        self._chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._current = memoryview(b"")
        self._ended = False
        self._abandoned = threading.Event()
        self._packed = _Hashed(source, layer.descriptor.digest.hasher())
        self._thread = threading.Thread(target=self._work, name="firkin-unpack", daemon=True)
        self._thread.start()

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer only at the end; all that is left for -1."""
        current = self._current
        if 0 <= size <= len(current):
            self._current = current[size:]
            return bytes(current[:size])
        parts = []
        wanted = size
        while size < 0 or wanted > 0:
            if not self._current and not self._fill():
                break
            piece = self._current if size < 0 else self._current[:wanted]
            self._current = self._current[len(piece) :]
            parts.append(piece)
            wanted -= len(piece)
        return b"".join(parts)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill `buffer`; return how much of it, less than all only at the end."""
        target = memoryview(buffer).cast("B")
        done = 0
        while done < len(target):
            if not self._current and not self._fill():
                break
            piece = self._current[: len(target) - done]
            target[done : done + len(piece)] = piece
            self._current = self._current[len(piece) :]
            done += len(piece)
        return done

    def verify(self) -> None:
        """Read what is left and check it all. Raises `ImageError`."""
        self._current = memoryview(b"")
        while self._fill():
            pass

    def close(self) -> None:
        """Stop the thread and wait for it. A second call does nothing."""
        self._abandoned.set()
        if self._ended:
            self._thread.join()
        while self._thread.is_alive():
            try:
                self._chunks.get(timeout=0.05)
            except queue.Empty:
                continue
        self._ended = True

    def __enter__(self) -> LayerStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self) -> bool:
        if self._ended:
            return False
        item = self._chunks.get()
        if item is None:
            self._ended = True
            return False
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        self._current = memoryview(item)
        return True

    def _work(self) -> None:
        try:
            for chunk in self._checked():
                self._chunks.put(chunk)
                if self._abandoned.is_set():
                    return
            self._chunks.put(None)
        except FirkinError as error:
            self._chunks.put(error)
        except Exception as error:  # noqa: BLE001 - handed to the reader, which raises it
            failure = ImageError(f"can't read the layer {self._layer.descriptor.digest}: {error}")
            failure.__cause__ = error
            self._chunks.put(failure)

    def _checked(self) -> Iterator[bytes]:
        layer, blob = self._layer, self._layer.descriptor
        plain = layer.compression == "tar"
        state: _Hash | None = None if plain and layer.diff_id == blob.digest else layer.diff_id.hasher()
        for chunk in unpack(self._packed, layer.compression):
            self.length += len(chunk)
            if self.length > self._limit:
                raise ImageError(f"the image unpacks to more than {self._limit} bytes")
            if state is not None:
                state.update(chunk)
            yield chunk
        while self._packed.read(1 << 20):
            pass  # What follows the compressed data belongs to the blob and to its digest.
        if self._packed.count != blob.size:
            raise ImageError(f"{blob.digest} has {self._packed.count} bytes, its descriptor promises {blob.size}")
        if (found := Digest.from_hash(self._packed.state)) != blob.digest:
            raise ImageError(f"the content of {blob.digest} hashes to {found}", hint="get the image again")
        if state is not None and (found := Digest.from_hash(state)) != layer.diff_id:
            raise ImageError(
                f"a layer unpacks to {found}, the image's config says {layer.diff_id}", hint="a broken image"
            )
