"""What `firkin -vv` shows of the link: every frame and call, in the order of the wire; nothing where it is off."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import subprocess
import sys

import pytest

from firkin.vminitd.link import ANY_SCHEMA, Link
from firkin.vminitd.rpc import Caller, serve
from firkin.vminitd.trace import Trace, tracer
from firkin.vminitd.wire import END, OPEN, Hello, control_frame, data_header

LOGGER = "firkin.vminitd.trace"


def test_frames_are_told_however_they_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    hello = Hello(bytes(16)).encode()
    payload = control_frame(OPEN, 3, 9)
    wire = hello + control_frame(OPEN, 1, 1024) + data_header(1, len(payload)) + payload + control_frame(END, 1)
    expected = [
        "> 64 bytes that are no frame: HELLO",
        "> OPEN   stream 1, length 4, port 1024",
        # A payload that looks like a frame is none.
        "> DATA   stream 1, length 20",
        "> END    stream 1, length 0",
    ]
    for step in (1, 7, 16, 33, len(wire)):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, LOGGER):
            trace = Trace(">")
            for begin in range(0, len(wire), step):
                part = wire[begin : begin + step]
                trace.saw((part[:3], memoryview(part)[3:], b"not sent yet"), len(part))
        assert caplog.messages == expected, step


async def test_a_call_is_told_with_its_time_and_its_frames(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: bytes) -> bytes:
        return request[::-1]

    with caplog.at_level(logging.DEBUG, LOGGER):
        host_end, guest_end = socket.socketpair()
        accepting = asyncio.create_task(Link.accept(guest_end))
        host = await Link.connect(host_end, schema=ANY_SCHEMA)
        guest = await accepting
        serving = asyncio.create_task(serve(guest, answer, reading=asyncio.Semaphore(1)))
        caller = Caller(host)
        assert await caller.submit("mirror", b"abc", bytes, None) == b"cba"
        abandoned = caller.submit("abandoned", b"", bytes, None)
        abandoned.cancel()
        await asyncio.sleep(0)
        await host.aclose()
        await guest.aclose()
        await serving
    ours = [message for message in caplog.messages if " stream 1," in message]
    # Each frame is told twice, by the one who sends it and the one who gets it.
    for frame in ("OPEN   stream 1, length 4, port 1024", "DATA   stream 1, length 7", "END    stream 1, length 0"):
        assert {f"> {frame}", f"< {frame}"} <= set(ours)
    calls = [message for message in caplog.messages if message.startswith("call ")]
    assert re.fullmatch(r"call mirror: \d+\.\d ms", calls[0])
    assert re.fullmatch(r"call abandoned: \d+\.\d ms, CancelledError: .*", calls[1])


def test_nothing_is_looked_at_where_it_is_off() -> None:
    assert not logging.getLogger(LOGGER).isEnabledFor(logging.DEBUG)
    assert tracer() is None


@pytest.mark.vm
def test_vv_shows_the_life_of_a_container(home: object, busybox_image: object) -> None:
    command = [sys.executable, "-c", "from firkin.cli import main; main()"]

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        words = [*command, *flags, "run", "--rm", "busybox", "echo", "hi"]
        return subprocess.run(words, env=dict(os.environ), text=True, capture_output=True, timeout=120, check=True)

    shown = run("-vv")
    assert shown.stdout == "hi\n"
    assert re.search(r"DEBUG firkin\.vminitd\.trace: > DATA   stream \d+, length \d+", shown.stderr)
    for call in ("resume", "mount", "create process", "wait process"):
        assert re.search(rf"firkin\.vminitd\.trace: call {call}: \d+\.\d ms$", shown.stderr, re.MULTILINE), call
    assert "vminitd.trace" not in run("-v").stderr
