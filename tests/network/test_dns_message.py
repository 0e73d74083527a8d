"""DNS messages are read strictly and written plainly."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.network.dns_message import (
    AAAA,
    CNAME,
    A,
    DnsError,
    Question,
    Record,
    answer,
    parse_answer,
    parse_query,
    query,
)
from firkin.network.policy import Policy

NAME = (b"www", b"Example")
ASKED = Question(7, NAME, A)
LABEL = st.binary(min_size=1, max_size=63)


def spelled(*labels: bytes) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def message(records: bytes, count: int = 1, flags: int = 0x8180, question: bytes = spelled(*NAME)) -> bytes:
    return struct.pack("!HHHHHH", 7, flags, 1, count, 0, 0) + question + struct.pack("!HH", A, 1) + records


@given(st.binary(max_size=300))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    for parse in (parse_query, lambda text: parse_answer(text, ASKED)):
        try:
            parse(data)
        except DnsError:
            continue
        assert len(data) >= 12


@given(st.binary(max_size=200), st.integers(0, 3))
def test_random_records_are_read_or_refused(data: bytes, count: int) -> None:
    try:
        found = parse_answer(message(data, count), ASKED)
    except DnsError:
        return
    assert len(found.answers) <= count


@given(st.lists(LABEL, min_size=1, max_size=3), st.integers(0, 65535))
def test_a_query_survives(labels: list[bytes], ident: int) -> None:
    asked = Question(ident, tuple(labels), AAAA, 1232)
    assert parse_query(query(asked)) == asked


@given(st.lists(st.tuples(st.lists(LABEL, max_size=2), st.integers(0, 2**31 - 1), st.binary(min_size=4, max_size=4))))
def test_an_answer_survives(records: list[tuple[list[bytes], int, bytes]]) -> None:
    given_ = tuple(Record(tuple(labels), A, ttl, data) for labels, ttl, data in records[:20])
    found = parse_answer(answer(ASKED, 0, given_, limit=65535), ASKED)
    assert found.answers == given_


def test_what_does_not_fit_is_cut_to_the_question() -> None:
    records = tuple(Record(NAME, A, 60, bytes(4)) for _ in range(100))
    text = answer(ASKED, 0, records, limit=512)
    assert len(text) < 512
    assert parse_answer(text, ASKED).truncated


def test_compressed_names_are_spelled_out() -> None:
    alias = b"\xc0\x0c" + struct.pack("!HHIH", CNAME, 1, 60, 6) + b"\3cdn\xc0\x10"
    (record,) = parse_answer(message(alias), ASKED).answers
    assert record == Record(NAME, CNAME, 60, spelled(b"cdn", b"Example"))


@pytest.mark.parametrize(
    "records",
    [
        b"\xc0\xff" + struct.pack("!HHIH", A, 1, 60, 4) + bytes(4),  # points forwards
        b"\xc0\x1d" + struct.pack("!HHIH", A, 1, 60, 4) + bytes(4),  # points to itself
        b"\x40abc" + struct.pack("!HHIH", A, 1, 60, 4) + bytes(4),  # a label of an unknown kind
        b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 60, 5) + bytes(5),  # an address of five bytes
        b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 60, 40) + bytes(4),  # data that is not there
        b"\xc0\x0c" + struct.pack("!HHIH", CNAME, 1, 60, 4) + b"\1a\0\0",  # a name shorter than the data
        spelled(*(b"x" * 63 for _ in range(5))) + struct.pack("!HHIH", A, 1, 60, 4) + bytes(4),  # too long
        b"\xc0",
    ],
)
def test_records_that_are_none(records: bytes) -> None:
    with pytest.raises(DnsError):
        parse_answer(message(records), ASKED)


@pytest.mark.parametrize(
    "text",
    [
        message(b"", 0, flags=0x0100),  # a query
        message(b"", 0, question=spelled(b"other")),
        b"\0\x08" + message(b"", 0)[2:],  # another number
        message(b"", 60000),
    ],
)
def test_answers_to_something_else(text: bytes) -> None:
    with pytest.raises(DnsError):
        parse_answer(text, ASKED)


def test_letters_of_the_question_may_change() -> None:
    assert parse_answer(message(b"", 0, question=spelled(b"WWW", b"eXample")), ASKED).code == 0


def test_a_name_with_odd_bytes_is_no_rules_name() -> None:
    assert Question(1, (b"a.b", b"c"), A).text == "a\\046b.c"
    assert not Policy.of(allow_domain=["*.b.c"]).allows_name(Question(1, (b"a.b", b"c"), A).text)
    assert Question(1, (b"\xff", b"C"), A).text == "ÿ.c"
