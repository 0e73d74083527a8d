"""PAX extended headers (POSIX.1-2017, `pax`, "pax Extended Header") and the sparse maps that GNU tar puts into them."""

from __future__ import annotations

import re

from firkin.errors import ImageError
from firkin.ext4._member import NO_XATTRS, Member, Time
from firkin.ext4.limits import Limits

__all__ = ["Records", "apply_records", "parse_records"]

_XATTR = b"SCHILY.xattr."
_TIME = re.compile(rb"(-?)(\d{1,18})(?:\.(\d*))?")


class Records:
    """The records of one header: the last value of each key, and the repeated sparse pairs of format 0.0 in order."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.pairs: list[bytes] = []

    def over(self, base: Records) -> Records:
        """These records laid over the global header `base`; an empty value deletes."""
        if not base.values:
            return self
        merged = Records()
        merged.values = base.values | self.values
        merged.pairs = self.pairs
        return merged


def parse_records(data: bytes) -> Records:
    """Parse `length key=value` lines. `ImageError` where a length does not fit."""
    records = Records()
    position, end = 0, len(data)
    while position < end:
        space = data.find(b" ", position, position + 20)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            if not data[position:].strip(b"\0"):
                break
            raise ImageError("a PAX header is malformed: a record without a length")
        stop = position + int(digits)
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not space + 1 < stop <= end or not equals or data[stop - 1] != 0x0A:
            raise ImageError("a PAX header is malformed: a record's length does not fit")
        if key == b"GNU.sparse.offset" or key == b"GNU.sparse.numbytes":
            records.pairs.append(value)
        else:
            records.values[key] = value
        position = stop
    return records


def apply_records(member: Member, records: Records, limits: Limits) -> None:
    """Let `records` override what the header said, sparse maps excepted."""
    total = 0
    for key, value in records.values.items():
        if key.startswith(_XATTR):
            if member.xattrs is NO_XATTRS:
                member.xattrs = {}
            # GNU tar writes "=" in a name as %3D and "%" as %25 (xheader.c, xattr_encode_keyword)
            member.xattrs[key[len(_XATTR) :].replace(b"%3D", b"=").replace(b"%25", b"%")] = value
            total += len(key) + len(value)
            if total > limits.max_xattr_bytes:
                raise ImageError(
                    f"the extended attributes of {member.name[:80]!r} take more than {limits.max_xattr_bytes} bytes"
                )
        elif value:
            _apply_field(member, key, value)


def _apply_field(member: Member, key: bytes, value: bytes) -> None:
    match key:
        case b"path":
            member.name = value
        case b"linkpath":
            member.link = value
        case b"size":
            member.size = member.stored = _natural(key, value)
        case b"uid":
            member.uid = _natural(key, value)
        case b"gid":
            member.gid = _natural(key, value)
        case b"mtime":
            member.mtime = _time(key, value)
        case b"atime":
            member.atime = _time(key, value)
        case b"SCHILY.devmajor":
            member.major = _natural(key, value)
        case b"SCHILY.devminor":
            member.minor = _natural(key, value)


def _natural(key: bytes, value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise ImageError(f"a PAX header holds no number for {key.decode()}: {value[:24]!r}")
    return int(value)


def _time(key: bytes, value: bytes) -> Time:
    found = _TIME.fullmatch(value)
    if found is None:
        raise ImageError(f"a PAX header holds no time for {key.decode()}: {value[:24]!r}")
    sign, whole, fraction = found.groups()
    seconds, nanoseconds = int(whole), int((fraction or b"")[:9].ljust(9, b"0"))
    if not sign:
        return seconds, nanoseconds
    return (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)
