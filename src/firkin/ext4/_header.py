"""The 512-byte tar header: V7, ustar (POSIX.1-1988) and GNU (GNU tar manual, "Basic Tar Format")."""

from __future__ import annotations

import struct
import zlib

from firkin.errors import ImageError
from firkin.ext4._member import Member, Time

__all__ = ["BLOCK", "CHAR", "DIRECTORY", "FIFO", "HARDLINK", "NODE", "REGULAR", "SYMLINK", "HeaderParser", "number"]

BLOCK = 512
REGULAR, HARDLINK, SYMLINK, CHAR, NODE, DIRECTORY, FIFO = b"0123456"

_FIELDS = struct.Struct("<100s24s12s12s8sB100s8s64x16s155s12x")
_SPACES = b" " * 8
_ADLER = 65521  # the modulus of Adler-32, whose low half is 1 + the sum of all bytes
_CACHE = 4096


def number(field: bytes) -> int:
    """A numeric field: octal text, or GNU base-256 where the first bit is set (big endian, two's complement)."""
    if field[:1] >= b"\x80":
        bits = len(field) * 8 - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    text = field.partition(b"\0")[0].strip()
    if not text:
        return 0
    if not text.isdigit():
        raise ImageError(f"a tar header holds no number where one belongs: {text[:24]!r}")
    try:
        return int(text, 8)
    except ValueError as error:
        raise ImageError(f"a tar header holds no octal number where one belongs: {text[:24]!r}") from error


class HeaderParser:
    """Parses headers, remembering the owners and times it has seen: most files of a layer share a few."""

    def __init__(self) -> None:
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._times: dict[bytes, Time] = {}

    def parse(self, buffer: bytearray, view: memoryview, at: int) -> Member:
        """The entry whose header lies at `at`. `ImageError` where the checksum or a number is wrong."""
        name, owner, size, mtime, checksum, kind, link, magic, device, prefix = _FIELDS.unpack_from(buffer, at)
        self._check(view, at, number(checksum))
        ids = self._owners.get(owner) or self._parse_owner(owner)
        time = self._times.get(mtime) or self._parse_time(mtime)
        name = name.partition(b"\0")[0]
        if magic[:6] == b"ustar\0" and prefix[0]:
            name = prefix.partition(b"\0")[0] + b"/" + name
        length = number(size)
        if length < 0:
            raise ImageError(f"a tar header gives a negative size for {name[:80]!r}")
        link = link.partition(b"\0")[0] if link[0] else b""
        member = Member(name, kind or REGULAR, ids[0], ids[1], ids[2], length, time, link)
        if kind in (CHAR, NODE):
            member.major, member.minor = number(device[:8]), number(device[8:])
        elif not kind and name.endswith(b"/"):
            member.kind = DIRECTORY  # V7 had no type for it
        return member

    def _check(self, view: memoryview, at: int, expected: int) -> None:
        total = zlib.adler32(view[at + 156 : at + 512], zlib.adler32(_SPACES, zlib.adler32(view[at : at + 148])))
        if (total & 0xFFFF) == (expected + 1) % _ADLER:
            return
        block = bytes(view[at : at + 148]) + _SPACES + bytes(view[at + 156 : at + BLOCK])
        signed = sum(block) - 256 * sum(byte > 127 for byte in block)
        if signed != expected:  # some old tars summed signed characters
            raise ImageError(
                "a tar header's checksum is wrong", hint="the layer is damaged, or not an uncompressed tar"
            )

    def _parse_owner(self, field: bytes) -> tuple[int, int, int]:
        ids = number(field[:8]) & 0o7777, number(field[8:16]), number(field[16:])
        if len(self._owners) < _CACHE:
            self._owners[field] = ids
        return ids

    def _parse_time(self, field: bytes) -> Time:
        time = number(field), 0
        if len(self._times) < _CACHE:
            self._times[field] = time
        return time
