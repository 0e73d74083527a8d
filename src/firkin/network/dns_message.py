"""DNS messages (RFC 1035), read strictly and written plainly: names without compression, nothing but what is asked."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = [
    "AAAA",
    "CNAME",
    "NXDOMAIN",
    "OPT",
    "REFUSED",
    "SERVFAIL",
    "A",
    "Answer",
    "DnsError",
    "Question",
    "Record",
    "answer",
    "parse_answer",
    "parse_query",
    "query",
]  # fmt: skip

A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
MX: Final = 15
AAAA: Final = 28
SRV: Final = 33
DNAME: Final = 39
OPT: Final = 41
IN: Final = 1
FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 1, 2, 3, 4, 5

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_RESPONSE, _TRUNCATED, _RECURSE, _RECURSES = 0x8000, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_MOST_RECORDS = 512
_MOST_JUMPS = 64
_LONGEST_NAME = 255
# How many bytes of the data stand before its one name; SOA has two, then five numbers.
_NAME_AT: Final = {NS: 0, CNAME: 0, PTR: 0, DNAME: 0, MX: 2, SRV: 6}
_SIZES: Final = {A: 4, AAAA: 16}
UDP_SIZE: Final = 1232


class DnsError(Exception):
    """A message that is not as it must be."""


class Question(NamedTuple):
    """A query. `name` is as it was asked, in labels; `size` is what the asker takes in one datagram."""

    id: int
    name: tuple[bytes, ...]
    type: int
    size: int = 512
    recursion: bool = True

    @property
    def text(self) -> str:
        """The name as rules are written: small letters, dots between labels; a dot within one is `\\046` (RFC 4343), so
        that no rule takes it for another name."""
        return b".".join(label.replace(b".", b"\\046") for label in self.name).lower().decode("latin-1")


class Record(NamedTuple):
    """A resource record; names in `data` of well-known types are spelled out."""

    name: tuple[bytes, ...]
    type: int
    ttl: int
    data: bytes


class Answer(NamedTuple):
    """What an upstream server answered."""

    code: int
    truncated: bool
    answers: tuple[Record, ...]
    authority: tuple[Record, ...]


def parse_query(message: bytes) -> Question:
    """The one question of a standard query of class IN. Raises `DnsError`."""
    ident, flags, questions, answers, authority, additional = _header(message)
    if flags & (_RESPONSE | _OPCODE) or questions != 1 or answers or authority or additional > 2:
        raise DnsError("not a standard query")
    question, at = _question(message, ident)
    size = 512
    for _ in range(additional):
        record, at = _record(message, at, opaque=True)
        if record is not None and record.type == OPT:
            size = max(512, record.ttl_or_class)
    return Question(ident, question.name, question.type, size, bool(flags & _RECURSE))


def parse_answer(message: bytes, asked: Question) -> Answer:
    """The answer to `asked`, of which it must have the number and the question. Raises `DnsError`."""
    ident, flags, questions, answers, authority, _ = _header(message)
    if ident != asked.id or not flags & _RESPONSE or flags & _OPCODE or questions != 1:
        raise DnsError("not an answer to that query")
    question, at = _question(message, ident)
    if question.type != asked.type or _lower(question.name) != _lower(asked.name):
        raise DnsError("an answer to another question")
    if answers + authority > _MOST_RECORDS:
        raise DnsError("too many records")
    sections: list[list[Record]] = [[], []]
    if not flags & _TRUNCATED:
        for section, count in zip(sections, (answers, authority), strict=True):
            for _ in range(count):
                record, at = _record(message, at)
                if record is not None:
                    section.append(record.plain())
    return Answer(flags & 15, bool(flags & _TRUNCATED), tuple(sections[0]), tuple(sections[1]))


def query(asked: Question) -> bytes:
    """The message that asks an upstream server, with EDNS (RFC 6891)."""
    flags = _RECURSE if asked.recursion else 0
    opt = b"\0" + _RECORD.pack(OPT, UDP_SIZE, 0, 0)
    return _HEADER.pack(asked.id, flags, 1, 0, 0, 1) + _spell(asked.name) + struct.pack("!HH", asked.type, IN) + opt


def answer(
    asked: Question, code: int, answers: tuple[Record, ...] = (), authority: tuple[Record, ...] = (), *, limit: int
) -> bytes:
    """The message that answers the guest; cut to the question where it is longer than `limit`."""
    flags = _RESPONSE | _RECURSES | (_RECURSE if asked.recursion else 0) | code
    question = _spell(asked.name) + struct.pack("!HH", asked.type, IN)
    body = b"".join(
        _spell(record.name) + _RECORD.pack(record.type, IN, record.ttl, len(record.data)) + record.data
        for record in (*answers, *authority)
    )
    if 12 + len(question) + len(body) > limit:
        return _HEADER.pack(asked.id, flags | _TRUNCATED, 1, 0, 0, 0) + question
    return _HEADER.pack(asked.id, flags, 1, len(answers), len(authority), 0) + question + body


class _Raw(NamedTuple):
    name: tuple[bytes, ...]
    type: int
    ttl_or_class: int
    ttl: int
    data: bytes

    def plain(self) -> Record:
        return Record(self.name, self.type, self.ttl, self.data)


def _lower(name: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(label.lower() for label in name)


def _header(message: bytes) -> tuple[int, int, int, int, int, int]:
    if len(message) < 12:
        raise DnsError("a message is shorter than its header")
    return _HEADER.unpack_from(message)


def _question(message: bytes, ident: int) -> tuple[Question, int]:
    name, at = _name(message, 12)
    if at + 4 > len(message):
        raise DnsError("a question is cut off")
    kind, klass = struct.unpack_from("!HH", message, at)
    if klass != IN:
        raise DnsError("another class than IN")
    return Question(ident, name, kind), at + 4


def _record(message: bytes, at: int, *, opaque: bool = False) -> tuple[_Raw | None, int]:
    """The record at `at` and where the next begins; None for one of another class than IN, but for OPT."""
    name, at = _name(message, at)
    if at + 10 > len(message):
        raise DnsError("a record is cut off")
    kind, klass, ttl, size = _RECORD.unpack_from(message, at)
    start, end = at + 10, at + 10 + size
    if end > len(message):
        raise DnsError("a record's data is cut off")
    data = message[start:end] if opaque else _data(message, kind, start, end)
    if klass != IN and kind != OPT:
        return None, end
    # A negative number means 0 (RFC 2181, section 8).
    return _Raw(name, kind, klass, 0 if ttl >> 31 else ttl, data), end


def _data(message: bytes, kind: int, start: int, end: int) -> bytes:
    if kind in _SIZES and end - start != _SIZES[kind]:
        raise DnsError("an address of a wrong length")
    if kind == SOA:
        first, at = _name(message, start)
        second, at = _name(message, at)
        if end - at != 20:
            raise DnsError("a SOA record of a wrong length")
        return _spell(first) + _spell(second) + message[at:end]
    if kind in _NAME_AT:
        at = start + _NAME_AT[kind]
        name, after = _name(message, at)
        if after != end:
            raise DnsError("a record's name is not as long as its data")
        return message[start:at] + _spell(name)
    return message[start:end]


def _name(message: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """The name at `at` and where it ends there; pointers lead backwards only."""
    labels: list[bytes] = []
    size, end, lowest = 1, None, at
    for _ in range(_LONGEST_NAME + _MOST_JUMPS):
        if at >= len(message):
            raise DnsError("a name is cut off")
        length = message[at]
        if length == 0:
            return tuple(labels), at + 1 if end is None else end
        if length >= 0xC0:
            if at + 1 >= len(message):
                raise DnsError("a name is cut off")
            target = (length & 0x3F) << 8 | message[at + 1]
            if target >= lowest:
                raise DnsError("a name points forwards")
            end = at + 2 if end is None else end
            at = lowest = target
            continue
        if length > 63:
            raise DnsError("a label of an unknown kind")
        if at + 1 + length > len(message):
            raise DnsError("a name is cut off")
        size += 1 + length
        if size > _LONGEST_NAME:
            raise DnsError("a name is too long")
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    raise DnsError("a name has too many pointers")


def _spell(name: tuple[bytes, ...]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in name) + b"\0"
