"""Detach keys, the log's two files, and readers that are too slow; without a VM."""

from __future__ import annotations

import asyncio
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.core.detach_keys import Detached, DetachKeys
from firkin.core.follow import Attachment
from firkin.core.log_file import LogReader, LogWriter
from firkin.errors import InvalidInputError, StreamResetError
from tests.vminitd.test_link import drain, links, stream_pair


@pytest.mark.parametrize(
    ("text", "codes"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-@,ctrl-_,ctrl-[", b"\0\x1f\x1b"), ("ctrl-A,b", b"\x01b")],
)
def test_keys_are_read_and_found(text: str, codes: bytes) -> None:
    keys = DetachKeys.parse(text)
    assert keys.passed(b"-" + codes[:-1]) == b"-"
    with pytest.raises(Detached):
        keys.passed(codes[-1:])


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", ",", "é", "ctrl-pq", ",".join("a" * 17)])
def test_keys_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        DetachKeys.parse(text)


@given(
    st.lists(st.lists(st.sampled_from(b"aab"), max_size=6).map(bytes), max_size=12),
    st.sampled_from(["a,a,b", "a,b", ""]),
)
def test_all_but_the_sequence_passes(chunks: list[bytes], text: str) -> None:
    """What has passed, and what is held, is what was typed, up to the first occurrence of the sequence."""
    keys = DetachKeys.parse(text)
    sequence = text.replace(",", "").encode()
    typed, passed = b"".join(chunks), b""
    for chunk in chunks:
        try:
            passed += keys.passed(chunk)
        except Detached:
            assert sequence in typed
            return
    assert not sequence or sequence not in typed
    assert typed.startswith(passed)
    held = typed[len(passed) :]
    assert sequence.startswith(held)


def test_two_files_keep_the_last_of_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogReader(tmp_path)
    writer = LogWriter(tmp_path)
    reader = LogReader(tmp_path)
    follower_saw = b""
    for number in range(40):
        writer.write(1 + number % 2, bytes([number]) * (1 << 19))
        follower_saw += b"".join(record.data[:1] for record in reader.read())
    # Who follows misses nothing; who comes later has the last 8 to 16 MiB.
    assert follower_saw == bytes(range(40))
    reader.close()
    records = list(LogReader(tmp_path).read())
    numbers = [record.data[0] for record in records]
    assert numbers == list(range(numbers[0], 40))
    assert 16 <= len(numbers) <= 32
    assert {record.stream for record in records} == {1, 2}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 17 << 20
    writer.close()


def test_half_a_record_is_read_when_it_is_whole(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    writer.write(1, b"whole")
    path = tmp_path / "output.log"
    whole = path.read_bytes()
    reader = LogReader(tmp_path)
    assert [record.data for record in reader.read()] == [b"whole"]
    with path.open("ab") as file:
        file.write(whole[:9])
        file.flush()
        assert list(reader.read()) == []
        file.write(whole[9:])
    assert [record.data for record in reader.read()] == [b"whole"]


async def test_a_reader_that_is_too_slow_is_let_go_and_nobody_waits_for_it() -> None:
    async with links() as (owner, guest), links() as (client, serving):
        written, read = await stream_pair(guest, owner)
        slow, sink = await stream_pair(client, serving)
        attachment = Attachment.join({"stdout": read}, {"stdout": sink})
        async with asyncio.timeout(60):
            for _ in range(128):
                await written.write(bytes(1 << 16))
                left = 1 << 16
                while left:
                    left -= len(await read.read())
        with pytest.raises(StreamResetError):
            await drain(slow)
        attachment.close()


def test_a_full_disk_ends_the_log_and_nothing_else(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a full disk: no byte more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for _ in range(3):
            writer.write(1, bytes(4096))
    finally:
        signal.signal(signal.SIGXFSZ, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 4096
    writer.close()
    assert list(LogReader(tmp_path).read()) == []
