"""Building tar headers: ustar with pax records where a field is too small (POSIX.1-2017, `pax`, interchange format)."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

__all__ = ["BLOCK", "END", "header", "padding"]

BLOCK: Final = 512
# Two blocks of zeros.
END: Final = bytes(2 * BLOCK)

_FIELD: Final = 100
_USTAR: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_PAX: Final = b"x"
_NANO: Final = 1_000_000_000


def header(
    path: bytes, kind: bytes, found: os.stat_result, *, size: int = 0, link: bytes = b"", more: Iterable[bytes] = ()
) -> bytes:
    """The header of `path` with the attributes of `found`; `more` are records of `record`, `kind` is ustar's letter."""
    records = list(more)
    if len(path) > _FIELD:
        records.append(record(b"path", path))
    if len(link) > _FIELD:
        records.append(record(b"linkpath", link))
    seconds, nanoseconds = divmod(found.st_mtime_ns, _NANO)
    if nanoseconds or seconds < 0:
        records.append(record(b"mtime", _decimal(found.st_mtime_ns)))
    mode = stat.S_IMODE(found.st_mode)
    block = _block(path, kind, mode, found.st_uid, found.st_gid, size, max(seconds, 0), link)
    if not records:
        return block
    text = b"".join(records)
    extended = _block(b"pax_header", _PAX, 0o600, 0, 0, len(text), 0, b"")
    return b"".join((extended, text, padding(len(text)), block))


def padding(size: int) -> bytes:
    """What fills content of `size` bytes up to a block."""
    return bytes(-size % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """One record of an extended header: its length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _decimal(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    return b"%b%d.%09d" % (sign, *divmod(abs(nanoseconds), _NANO))


def _number(value: int, width: int) -> bytes:
    """Octal digits, or base 256 with the first bit set (GNU) where they do not suffice."""
    digits = b"%0*o" % (width - 1, value)
    return digits if len(digits) < width else (value | 1 << (8 * width - 1)).to_bytes(width, "big")


def _block(path: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, seconds: int, link: bytes) -> bytes:
    fields = [
        path[:_FIELD],
        b"%07o" % mode,
        _number(uid, 8),
        _number(gid, 8),
        _number(size, 12),
        _number(seconds, 12),
        b" " * 8,
        kind,
        link[:_FIELD],
        b"ustar\x0000",
        b"",
        b"",
        b"",
        b"",
        b"",
    ]
    fields[6] = b"%06o\0 " % sum(_USTAR.pack(*fields))
    return _USTAR.pack(*fields)
