"""One entry of a layer, with every tar dialect resolved."""

from __future__ import annotations

__all__ = ["NO_XATTRS", "Member", "Time"]

Time = tuple[int, int]
"""Seconds since the epoch (may be negative) and nanoseconds 0-999,999,999."""

NO_XATTRS: dict[bytes, bytes] = {}


class Member:
    """An entry of a layer.

    `kind` is the tar type flag (`0` regular, `1` hard link, `2` symlink, `3` and `4` devices, `5` directory, `6`
    fifo). `stored` is the number of content bytes that follow in the stream; `size` that of the file. `sparse` holds
    the data regions (offset, length) of a sparse file in rising order, or None where the content is whole.
    """

    __slots__ = (
        "atime",
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "size",
        "sparse",
        "stored",
        "uid",
        "xattrs",
    )

    def __init__(
        self, name: bytes, kind: int, mode: int, uid: int, gid: int, size: int, mtime: Time, link: bytes
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.stored = size
        self.mtime = mtime
        self.atime: Time | None = None
        self.link = link
        self.major = 0
        self.minor = 0
        self.sparse: list[tuple[int, int]] | None = None
        self.xattrs = NO_XATTRS
