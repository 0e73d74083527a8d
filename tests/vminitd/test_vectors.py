"""The shared vectors of the guest link (tests/vectors/README.md), driven through the Python framing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firkin.vminitd import events as ev
from firkin.vminitd.framing import Framing
from firkin.vminitd.wire import CREDIT, HEADER, HELLO_SIZE, INITIAL_SENTINEL, MAGIC, Answer, Hello

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "framing.json").read_text())
SENTINELS = [bytes.fromhex(text) for text in VECTORS["sentinels"]]
NONCES = [bytes.fromhex(text) for text in VECTORS["nonces"]]
SCHEMA = bytes.fromhex(VECTORS["identity"]["schema"])
BOOT_ID = bytes.fromhex(VECTORS["identity"]["boot_id"])
CASES = {case["name"]: case for case in VECTORS["cases"]}


def unpack(parts: list[Any]) -> bytes:
    """Bytes as the vectors write them."""
    return b"".join(
        bytes.fromhex(part) if isinstance(part, str) else bytes.fromhex(part["repeat"]) * part["times"]
        for part in parts
    )


def peer(case: dict[str, Any]) -> Framing:
    """The framing under test, in the state in which the case begins."""
    hello = Hello(SENTINELS[0], NONCES[0], SENTINELS[1])
    if case["role"] == "guest":
        framing = Framing.guest(SENTINELS[0], schema=SCHEMA, boot_id=BOOT_ID)
        first = hello.encode()
    else:
        framing = Framing.host(hello)
        framing.take()
        first = Answer(NONCES[0], schema=SCHEMA, boot_id=BOOT_ID).encode()
    if case["connected"]:
        framing.feed(first)
        framing.take()
    return framing


def plain(event: ev.Event) -> dict[str, Any]:
    """An event as the vectors write it."""
    match event:
        case ev.Established(answer):
            return {"event": "hello", "accepted": answer.status == 0}
        case ev.Greeted(_, refused):
            return {"event": "hello", "accepted": not refused}
        case ev.Faulted(fault, _):
            return {"event": "fault", "fault": fault}
        case ev.StreamOpened(stream, port):
            return {"event": "opened", "stream": stream, "port": port}
        case ev.DataReceived(stream, data):
            return {"event": "data", "stream": stream, "bytes": data}
        case ev.StreamEnded(stream):
            return {"event": "ended", "stream": stream}
        case ev.StreamReset(stream, errno):
            return {"event": "reset", "stream": stream, "errno": errno}
        case ev.Credited(stream, amount):
            return {"event": "credit", "stream": stream, "bytes": amount}
        case ev.PongReceived(payload):
            return {"event": "pong", "bytes": payload}


def without_credit(output: bytes) -> bytes:
    """Drop CREDIT frames, which each side gives back when it likes."""
    kept, offset = b"", 0
    while offset < len(output):
        magic, kind, _flags, _stream, length, _crc = HEADER.unpack_from(output.ljust(offset + 16, b"\0"), offset)
        size = 16 + length if magic == MAGIC else HELLO_SIZE
        if magic != MAGIC or kind != CREDIT:
            kept += output[offset : offset + size]
        offset += size
    return kept


def without_stale_faults(happened: list[ev.Event]) -> list[ev.Event]:
    """What an old connection left before a HELLO may look like a fault, depending on where the bytes were cut."""
    greeted = [isinstance(event, ev.Greeted) for event in [*happened[1:], None]]
    return [
        event for event, last in zip(happened, greeted, strict=False) if not (last and isinstance(event, ev.Faulted))
    ]


def act(framing: Framing, step: dict[str, Any]) -> None:
    """Do what a `do` step says."""
    match step["do"]:
        case "open":
            assert framing.open(step["port"]) == step["stream"]
        case "data":
            data = unpack(step["bytes"])
            assert framing.send(step["stream"], memoryview(data)) == len(data)
        case "end":
            framing.end(step["stream"])
        case "reset":
            framing.reset(step["stream"], step["errno"])
        case other:
            raise AssertionError(f"the vectors have a step that this test does not know: {other}")


@pytest.mark.parametrize("cut", [1, 7, 17, 1 << 20])
@pytest.mark.parametrize("name", CASES)
def test_vector(name: str, cut: int) -> None:
    case = CASES[name]
    framing = peer(case)
    for step in case["steps"]:
        if "receive" not in step:
            act(framing, step)
        else:
            data = unpack(step["receive"])
            if len(data) > 20_000 and cut < 17:
                cut = 997
            happened = [event for at in range(0, len(data), cut) for event in framing.feed(data[at : at + cut])]
            expected = [
                {**e, "bytes": unpack(e["bytes"])} if isinstance(e.get("bytes"), list) else e for e in step["events"]
            ]
            assert [plain(event) for event in without_stale_faults(happened)] == expected
        assert without_credit(framing.take()) == unpack(step.get("sends", []))


def test_initial_sentinel_is_the_one_of_the_vectors() -> None:
    assert SENTINELS[0] == INITIAL_SENTINEL
