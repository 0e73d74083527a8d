"""The members of a layer, in order: long names, PAX headers and sparse maps resolved into one `Member` each."""

from __future__ import annotations

from collections.abc import Iterator

from firkin.errors import ImageError
from firkin.ext4._header import BLOCK, CHAR, DIRECTORY, FIFO, HARDLINK, NODE, REGULAR, SYMLINK, HeaderParser
from firkin.ext4._member import Member
from firkin.ext4._pax import Records, apply_records, parse_records
from firkin.ext4._sparse import read_gnu_map, read_pax_map
from firkin.ext4._stream import LayerStream
from firkin.ext4.limits import Limits

__all__ = ["members"]

_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE, _DUMPDIR, _MULTI = b"LKxgSDM"
_SKIPPED = frozenset(b"VNX")  # a volume's label, and names in forms that nothing writes any more
_META = frozenset(b"LKxg")
_WITHOUT_CONTENT = frozenset((HARDLINK, SYMLINK, CHAR, NODE, DIRECTORY, FIFO))
_KINDS = frozenset((REGULAR, *_WITHOUT_CONTENT))
_PAX_ROOM = 1 << 20


def members(stream: LayerStream, limits: Limits) -> Iterator[Member]:
    """Yield each member with the stream at its content, of which the consumer takes exactly `member.stored` bytes.

    Raises `ImageError` for anything that is not tar. The stream ends at a block of zeros or, as GNU tar allows, at
    the end of the data.
    """
    parser = HeaderParser()
    base = Records()
    pending = _Pending()
    while stream.want(BLOCK) == BLOCK:
        at = stream.position
        if not stream.buffer[at] and not any(stream.view[at : at + BLOCK]):
            break
        member = parser.parse(stream.buffer, stream.view, at)
        if member.kind in _META:
            stream.position = at + BLOCK
            records = pending.read(member, stream, limits)
            if records is not None:
                base = records.over(base)
            continue
        header = bytes(stream.view[at : at + BLOCK]) if member.kind == _SPARSE else b""
        stream.position = at + BLOCK
        if header or pending.seen or base.values:
            pending.resolve(member, base, header, stream, limits)
            pending = _Pending()
        if member.kind not in _KINDS and not _settle(member, stream):
            continue
        if member.kind in _WITHOUT_CONTENT:
            member.size = member.stored = 0  # sizes of links and directories are hearsay (as in Go's archive/tar)
        padding = -member.stored % BLOCK
        yield member
        if padding:
            # `umoci insert` ends a layer right behind the content of its last file; Go's archive/tar takes that too.
            present = stream.want(padding)
            stream.position += present
    else:
        if stream.end != stream.position:
            raise ImageError("the tar ends in the middle of a header", hint="fetch the image again")
    if pending.seen:
        raise ImageError("the tar ends after an extended header")


class _Pending:
    """What extended headers said about the member that follows."""

    def __init__(self) -> None:
        self.seen = False
        self._name: bytes | None = None
        self._link: bytes | None = None
        self._records = Records()

    def read(self, member: Member, stream: LayerStream, limits: Limits) -> Records | None:
        """Take an extended header in; the records of a global one are returned."""
        long = member.kind == _LONG_NAME or member.kind == _LONG_LINK
        bound = limits.max_path + 1 if long else 2 * limits.max_path + limits.max_xattr_bytes + _PAX_ROOM
        if member.size > bound:
            raise ImageError(f"an extended tar header takes more than {bound} bytes")
        data = stream.take(member.size)
        stream.skip(-member.size % BLOCK)
        if member.kind == _PAX_GLOBAL:
            return parse_records(data)
        self.seen = True
        if member.kind == _LONG_NAME:
            self._name = data.partition(b"\0")[0]
        elif member.kind == _LONG_LINK:
            self._link = data.partition(b"\0")[0]
        else:
            self._records = parse_records(data)
        return None

    def resolve(self, member: Member, base: Records, header: bytes, stream: LayerStream, limits: Limits) -> None:
        """Apply all of it to `member`."""
        if self._name is not None:
            member.name = self._name
        if self._link is not None:
            member.link = self._link
        records = self._records.over(base)
        apply_records(member, records, limits)
        if header:
            read_gnu_map(member, header, stream, limits)
            member.kind = REGULAR
        elif member.kind == REGULAR:
            read_pax_map(member, records, stream, limits)


def _settle(member: Member, stream: LayerStream) -> bool:
    """Give a member of another type the kind it is extracted as; false where it is stepped over."""
    if member.kind == _MULTI:
        raise ImageError("it may not be a part of a multi-volume tar")
    if member.kind in _SKIPPED or member.kind == _DUMPDIR:
        stream.skip(member.stored + -member.stored % BLOCK)
        member.size = member.stored = 0
        if member.kind in _SKIPPED:
            return False
        member.kind = DIRECTORY
    else:
        member.kind = REGULAR  # POSIX: an unknown type is a regular file
    return True
