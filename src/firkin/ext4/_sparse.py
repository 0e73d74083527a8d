"""Sparse maps: old GNU headers, PAX formats 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files")."""

from __future__ import annotations

from firkin.errors import ImageError
from firkin.ext4._header import BLOCK, number
from firkin.ext4._member import Member
from firkin.ext4._pax import Records
from firkin.ext4._stream import LayerStream
from firkin.ext4.limits import Limits

__all__ = ["read_gnu_map", "read_pax_map"]

_OLD_ENTRIES = 386
_OLD_EXTENDED = 482
_OLD_SIZE = 483
_ENTRY = 24


def read_gnu_map(member: Member, header: bytes, stream: LayerStream, limits: Limits) -> None:
    """Old GNU (type `S`): four regions in the header, then blocks of 21 as long as each says that another follows."""
    member.size = number(header[_OLD_SIZE : _OLD_SIZE + 12])
    numbers: list[int] = []
    _collect(header[_OLD_ENTRIES:_OLD_EXTENDED], numbers)
    more = header[_OLD_EXTENDED]
    while more:
        block = stream.take(BLOCK)
        _collect(block[:504], numbers)
        more = block[504]
        _bound(len(numbers) // 2, member, limits)
    member.sparse = _regions(numbers, member)


def read_pax_map(member: Member, records: Records, stream: LayerStream, limits: Limits) -> None:
    """Take the map that PAX records announce, if they do; format 1.0 has it in front of the content."""
    values = records.values
    if not any(key.startswith(b"GNU.sparse.") for key in values):
        return
    member.name = values.get(b"GNU.sparse.name", member.name)
    size = values.get(b"GNU.sparse.realsize") or values.get(b"GNU.sparse.size")
    if values.get(b"GNU.sparse.major") == b"1" and values.get(b"GNU.sparse.minor", b"0") == b"0":
        numbers = _read_text_map(member, stream, limits)
    elif b"GNU.sparse.map" in values:
        numbers = [_decimal(text, member) for text in values[b"GNU.sparse.map"].split(b",") if text]
    elif records.pairs:
        numbers = [_decimal(text, member) for text in records.pairs]
    else:
        return
    if size is None:
        raise ImageError(f"the sparse file {member.name[:80]!r} has no size")
    member.size = _decimal(size, member)
    _bound(len(numbers) // 2, member, limits)
    member.sparse = _regions(numbers, member)


def _collect(data: bytes, numbers: list[int]) -> None:
    for at in range(0, len(data), _ENTRY):
        if not data[at] and not data[at + 12]:
            break
        numbers += (number(data[at : at + 12]), number(data[at + 12 : at + _ENTRY]))


def _read_text_map(member: Member, stream: LayerStream, limits: Limits) -> list[int]:
    """Lines of decimal numbers, the first their count in pairs, padded to a block."""
    text, lines, wanted = b"", list[bytes](), 1
    numbers: list[int] = []
    while len(numbers) < wanted:
        if member.stored < BLOCK:
            raise ImageError(f"the sparse map of {member.name[:80]!r} is cut short")
        text += stream.take(BLOCK)
        member.stored -= BLOCK
        *lines, text = text.split(b"\n")
        numbers += [_decimal(line, member) for line in lines[: wanted - len(numbers)]]
        if numbers and wanted == 1:
            _bound(numbers[0], member, limits)
            wanted += 2 * numbers[0]
            numbers += [_decimal(line, member) for line in lines[1:wanted]]
        if len(text) > BLOCK:
            raise ImageError(f"the sparse map of {member.name[:80]!r} is malformed")
    return numbers[1:]


def _decimal(text: bytes, member: Member) -> int:
    if not text.isdigit() or len(text) > 19:
        raise ImageError(f"the sparse map of {member.name[:80]!r} holds no number: {text[:24]!r}")
    return int(text)


def _bound(entries: int, member: Member, limits: Limits) -> None:
    if entries > limits.max_sparse_entries:
        raise ImageError(
            f"the sparse file {member.name[:80]!r} has more than {limits.max_sparse_entries} regions",
            hint="raise Limits.max_sparse_entries",
        )


def _regions(numbers: list[int], member: Member) -> list[tuple[int, int]]:
    regions: list[tuple[int, int]] = []
    last = total = 0
    for offset, length in zip(numbers[::2], numbers[1::2], strict=len(numbers) % 2 == 0):
        if offset < last or length < 0 or offset + length > member.size:
            raise ImageError(f"the sparse map of {member.name[:80]!r} is not in order")
        last = offset + length
        total += length
        if length:
            regions.append((offset, length))
    if total != member.stored or len(numbers) % 2:
        raise ImageError(f"the sparse map of {member.name[:80]!r} does not match its content")
    return regions
