"""Writes framing.json: byte strings and what they must mean, straight from docs/protocol.md.

A third, deliberately plain reading of the specification, so that the two implementations are held against the page
and not against each other. Run it after a change of the protocol: `python tests/vectors/generate.py`.
"""

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

Json = dict[str, Any]
OPEN, DATA, END, RESET, CREDIT, PING, PONG = range(1, 8)
SENTINEL = hashlib.sha256(b"firkin guest link v1").digest()[:16]
SCHEMA, BOOT_ID = bytes(range(16)), bytes(range(16, 32))
NONCES = [hashlib.sha256(b"nonce %d" % n).digest()[:16] for n in range(4)]
SENTINELS = [SENTINEL] + [hashlib.sha256(b"sentinel %d" % n).digest()[:16] for n in range(1, 5)]
FULL = 32_752


def sealed(block: bytes) -> bytes:
    return block + struct.pack("<I", zlib.crc32(block))


def hello(n: int, major: int = 1, minor: int = 0, flags: int = 0) -> bytes:
    """The n-th HELLO of a connection's life: the n-th sentinel, and the next one."""
    return sealed(struct.pack("<16sHHI16s16sI", SENTINELS[n], major, minor, flags, NONCES[n], SENTINELS[n + 1], 0))


def answer(n: int, status: int = 0, major: int = 1) -> bytes:
    return sealed(struct.pack("<16sHHI16s16sI", NONCES[n], major, 0, status, SCHEMA, BOOT_ID, 0))


def frame(
    kind: int, stream: int, payload: bytes = b"", *, flags: int = 0, magic: bytes = b"FK", length: int = -1
) -> bytes:
    head = struct.pack("<2sBBII", magic, kind, flags, stream, len(payload) if length < 0 else length)
    return sealed(head) + payload


def word(kind: int, stream: int, value: int) -> bytes:
    return frame(kind, stream, struct.pack("<I", value))


def packed(data: bytes) -> list[Any]:
    """Hex strings, and {"repeat": hex byte, "times": n} for long runs of one byte."""
    parts: list[Any] = []
    start = 0
    while start < len(data):
        run = start
        while run < len(data) and data[run] == data[start]:
            run += 1
        if run - start >= 256:
            parts.append({"repeat": data[start : start + 1].hex(), "times": run - start})
        elif parts and isinstance(parts[-1], str):
            parts[-1] += data[start:run].hex()
        else:
            parts.append(data[start:run].hex())
        start = run
    return parts


def opened(stream: int, port: int) -> Json:
    return {"event": "opened", "stream": stream, "port": port}


def data(stream: int, payload: bytes) -> Json:
    return {"event": "data", "stream": stream, "bytes": packed(payload)}


def ended(stream: int) -> Json:
    return {"event": "ended", "stream": stream}


def reset(stream: int, errno: int) -> Json:
    return {"event": "reset", "stream": stream, "errno": errno}


def credit(stream: int, count: int) -> Json:
    return {"event": "credit", "stream": stream, "bytes": count}


def fault(name: str) -> Json:
    return {"event": "fault", "fault": name}


HELLO_OK: Json = {"event": "hello", "accepted": True}
HELLO_REFUSED: Json = {"event": "hello", "accepted": False}


def receive(wire: bytes, *events: Json, sends: bytes = b"") -> Json:
    return {"receive": packed(wire), "events": list(events), "sends": packed(sends)}


def act(action: Json, sends: bytes) -> Json:
    return {**action, "sends": packed(sends)}


def case(name: str, role: str, *steps: Json, connected: bool = True) -> Json:
    """connected: the handshake was done by the first HELLO (a guest's sentinel is then SENTINELS[1])."""
    return {"name": name, "role": role, "connected": connected, "steps": list(steps)}


def handshakes() -> list[Json]:
    stale = frame(DATA, 1, b"x" * 100)
    stale_hello = sealed(SENTINEL + bytes(44))
    chance = bytearray(hello(1))
    chance[-1] ^= 1
    return [
        case("hello", "guest", receive(hello(0), HELLO_OK, sends=answer(0)), connected=False),
        case(
            "hello after garbage",
            "guest",
            receive(b"\0garbage FK" + hello(0), HELLO_OK, sends=answer(0)),
            connected=False,
        ),
        case(
            "a higher minor and flags are accepted",
            "guest",
            receive(hello(0, minor=9, flags=8), HELLO_OK, sends=answer(0)),
            connected=False,
        ),
        case(
            "another major is refused, then only a HELLO is read",
            "guest",
            receive(hello(0, major=2), HELLO_REFUSED, sends=answer(0, status=1)),
            receive(frame(PING, 0, b"12345678")),
            receive(hello(1), HELLO_OK, sends=answer(1)),
            connected=False,
        ),
        case(
            "frames before the first HELLO are ignored",
            "guest",
            receive(frame(PING, 0, b"12345678") + b"\xff"),
            connected=False,
        ),
        case(
            "a HELLO in the middle of a payload",
            "guest",
            receive(word(OPEN, 1, 1024), opened(1, 1024)),
            receive(stale[:-20] + hello(1), HELLO_OK, sends=answer(1)),
            receive(word(OPEN, 1, 7), opened(1, 7)),
        ),
        case("a HELLO in the middle of a header", "guest", receive(stale[:9] + hello(1), HELLO_OK, sends=answer(1))),
        case(
            "whole frames before a HELLO still count",
            "guest",
            receive(word(OPEN, 1, 5) + hello(1), opened(1, 5), HELLO_OK, sends=answer(1)),
        ),
        case(
            "the old sentinel is data like any other, and so is one with a wrong checksum",
            "guest",
            receive(word(OPEN, 1, 5) + frame(DATA, 1, stale_hello), opened(1, 5), data(1, stale_hello)),
            receive(frame(DATA, 1, bytes(chance)), data(1, bytes(chance))),
        ),
        case(
            "two HELLOs, of which the second matches",
            "guest",
            receive(hello(0) + hello(1), HELLO_OK, sends=answer(1)),
        ),
        case("a HELLO twice in a row", "guest", receive(hello(1) + hello(2), HELLO_OK, HELLO_OK, sends=answer(2))),
        case(
            "output that waits is dropped by a HELLO",
            "guest",
            receive(frame(PING, 0, b"12345678") + hello(1), HELLO_OK, sends=answer(1)),
        ),
        case(
            "the answer, after what the old connection left",
            "host",
            receive(stale[:30] + answer(0), HELLO_OK),
            connected=False,
        ),
        case("a refusal", "host", receive(answer(0, status=1, major=2), HELLO_REFUSED), connected=False),
        case("an answer to another nonce is not one", "host", receive(answer(1)), connected=False),
    ]


def frames() -> list[Json]:
    full = bytes([0x61]) * FULL
    return [
        case(
            "a call: open, data, end both ways",
            "guest",
            receive(
                word(OPEN, 1, 1024) + frame(DATA, 1, b"ask") + frame(END, 1), opened(1, 1024), data(1, b"ask"), ended(1)
            ),
            act({"do": "data", "stream": 1, "bytes": packed(b"answer")}, frame(DATA, 1, b"answer")),
            act({"do": "end", "stream": 1}, frame(END, 1)),
            receive(frame(DATA, 1, b"late") + frame(END, 1) + word(RESET, 1, 125) + word(CREDIT, 1, 5)),
        ),
        case(
            "the largest frame", "guest", receive(word(OPEN, 1, 9) + frame(DATA, 1, full), opened(1, 9), data(1, full))
        ),
        case(
            "streams of both sides",
            "guest",
            act({"do": "open", "port": 0x1000_0000, "stream": 2}, word(OPEN, 2, 0x1000_0000)),
            act({"do": "open", "port": 0x1000_0001, "stream": 4}, word(OPEN, 4, 0x1000_0001)),
            receive(word(OPEN, 1, 1024) + word(OPEN, 7, 1024), opened(1, 1024), opened(7, 1024)),
            receive(word(RESET, 4, 111), reset(4, 111)),
            act({"do": "reset", "stream": 7, "errno": 111}, word(RESET, 7, 111)),
            receive(frame(DATA, 7, b"under way") + frame(DATA, 2, b"hi"), data(2, b"hi")),
        ),
        case(
            "a host opens odd streams",
            "host",
            act({"do": "open", "port": 1024, "stream": 1}, word(OPEN, 1, 1024)),
            act({"do": "open", "port": 1024, "stream": 3}, word(OPEN, 3, 1024)),
            receive(word(OPEN, 2, 0x1000_0000), opened(2, 0x1000_0000)),
        ),
        case("ping", "guest", receive(frame(PING, 0, b"12345678"), sends=frame(PONG, 0, b"12345678"))),
        case("pong", "host", receive(frame(PONG, 0, b"12345678"), {"event": "pong", "bytes": packed(b"12345678")})),
        case(
            "END of both sides frees the stream, in either order",
            "guest",
            receive(word(OPEN, 1, 3), opened(1, 3)),
            act({"do": "end", "stream": 1}, frame(END, 1)),
            receive(frame(DATA, 1, b"x") + frame(END, 1), data(1, b"x"), ended(1)),
            receive(frame(DATA, 1, b"late")),
        ),
        case(
            "credit for a stream and for the connection",
            "guest",
            receive(word(OPEN, 1, 3), opened(1, 3)),
            receive(word(CREDIT, 1, 2**20 - 65_536), credit(1, 2**20 - 65_536)),
            act({"do": "data", "stream": 1, "bytes": packed(full)}, frame(DATA, 1, full)),
            receive(word(CREDIT, 0, FULL), credit(0, FULL)),
        ),
        case(
            "the 1025th open stream is refused, and open ones go on",
            "guest",
            receive(
                b"".join(word(OPEN, 2 * n + 1, 1024) for n in range(1025)),
                *[opened(2 * n + 1, 1024) for n in range(1024)],
                sends=word(RESET, 2049, 24),
            ),
            receive(frame(DATA, 2049, b"dropped") + frame(DATA, 1, b"kept"), data(1, b"kept")),
        ),
    ]


def faults() -> list[Json]:
    ready = word(OPEN, 1, 1024)
    corrupt = bytearray(frame(DATA, 1, b"x"))
    corrupt[12] ^= 0x80
    full = bytes(FULL)
    wrong: list[tuple[str, str, bytes, list[Json]]] = [
        ("magic", "magic", frame(DATA, 1, b"x", magic=b"KF"), []),
        ("checksum", "checksum", bytes(corrupt), []),
        ("flags", "flags", frame(DATA, 1, b"x", flags=1), []),
        ("type 0", "type", frame(0, 1), []),
        ("type 8", "type", frame(8, 1), []),
        ("DATA without bytes", "length", frame(DATA, 1), []),
        ("DATA too long, seen before its payload", "length", frame(DATA, 1, length=FULL + 1), []),
        ("DATA of 4 GiB", "length", frame(DATA, 1, length=2**32 - 1), []),
        ("END with bytes", "length", frame(END, 1, b"x"), []),
        ("OPEN without a port", "length", frame(OPEN, 3), []),
        ("PING of 7 bytes", "length", frame(PING, 0, b"1234567"), []),
        ("DATA on stream 0", "stream", frame(DATA, 0, b"x"), []),
        ("PING on a stream", "stream", frame(PING, 1, b"12345678"), []),
        ("OPEN of the guest's number", "stream", word(OPEN, 2, 1024), []),
        ("OPEN of a used number", "stream", word(OPEN, 1, 1024), []),
        ("OPEN of a lower number", "stream", word(OPEN, 9, 1) + word(OPEN, 7, 1), [opened(9, 1)]),
        ("DATA on a stream that never was", "stream", frame(DATA, 3, b"x"), []),
        ("CREDIT on the guest's stream that never was", "stream", word(CREDIT, 2, 1), []),
        ("RESET of a stream that never was", "stream", word(RESET, 5, 1), []),
        ("more DATA than credit", "window", frame(DATA, 1, full) * 3, [data(1, full)] * 2),
        ("DATA after END", "ended", frame(END, 1) + frame(DATA, 1, b"x"), [ended(1)]),
        ("END after END", "ended", frame(END, 1) + frame(END, 1), [ended(1)]),
        ("CREDIT of 0", "credit", word(CREDIT, 1, 0), []),
        ("CREDIT above 2^20", "credit", word(CREDIT, 1, 2**20 + 1), []),
        ("CREDIT that lifts a stream's window too high", "credit", word(CREDIT, 1, 2**20 - 65_535), []),
        ("CREDIT that lifts the connection's window too high", "credit", word(CREDIT, 0, 1), []),
    ]
    guest = [
        case(
            f"fault: {name}",
            "guest",
            receive(ready, opened(1, 1024)),
            receive(wire + frame(PING, 0, b"12345678"), *events, fault(expected)),
            receive(hello(1), HELLO_OK, sends=answer(1)),
            receive(ready, opened(1, 1024)),
        )
        for name, expected, wire, events in wrong
    ]
    host = [
        case("fault: OPEN of the host's number", "host", receive(word(OPEN, 1, 1), fault("stream"))),
        case("fault: DATA on a stream that never was (host)", "host", receive(frame(DATA, 2, b"x"), fault("stream"))),
        case("fault: magic (host)", "host", receive(frame(DATA, 2, b"x", magic=b"xx"), fault("magic"))),
    ]
    return guest + host


def document() -> Json:
    return {
        "identity": {"schema": SCHEMA.hex(), "boot_id": BOOT_ID.hex()},
        "sentinels": [sentinel.hex() for sentinel in SENTINELS],
        "nonces": [nonce.hex() for nonce in NONCES],
        "cases": handshakes() + frames() + faults(),
    }


def text() -> str:
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("framing.json").write_text(text())
