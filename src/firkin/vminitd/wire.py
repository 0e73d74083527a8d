"""The bytes of the guest link: the HELLO, its answer, and frame headers (docs/protocol.md, sections 1 and 2).

Pure functions and values, no state. All integers are little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import field
from typing import Final

from firkin.frozen import dataclass

__all__ = [
    "CREDIT",
    "DATA",
    "END",
    "HELLO_SIZE",
    "INITIAL_SENTINEL",
    "MAJOR",
    "MAX_CREDIT",
    "MAX_PAYLOAD",
    "OPEN",
    "PING",
    "PONG",
    "RESET",
    "Answer",
    "Hello",
    "ProtocolFault",
    "control_frame",
    "data_header",
]

MAJOR: Final = 1
MINOR: Final = 0
# First 16 bytes of SHA-256 of "firkin guest link v1"; spelled out, since importing hashlib costs milliseconds.
INITIAL_SENTINEL: Final = bytes.fromhex("d755983fb80c0134ee7c8910d0ed74a3")
HELLO_SIZE: Final = 64

HEADER_SIZE: Final = 16
MAX_PAYLOAD: Final = 32768 - HEADER_SIZE
MAX_CREDIT: Final = 1 << 20
MAGIC: Final = int.from_bytes(b"FK", "little")

OPEN: Final = 1
DATA: Final = 2
END: Final = 3
RESET: Final = 4
CREDIT: Final = 5
PING: Final = 6
PONG: Final = 7
# Payload length of each type but DATA.
PAYLOAD_SIZES: Final = {OPEN: 4, END: 0, RESET: 4, CREDIT: 4, PING: 8, PONG: 8}

HEADER: Final = struct.Struct("<HBBIII")
_HEADER_HEAD: Final = struct.Struct("<HBBII")
_U32: Final = struct.Struct("<I")
_HELLO: Final = struct.Struct("<16sHHI16s16sI")
_ANSWER: Final = struct.Struct("<16sHHI16s16sI")

_pack_head = _HEADER_HEAD.pack
_pack_u32 = _U32.pack
_crc32 = zlib.crc32


class ProtocolFault(Exception):
    """The peer broke the protocol (docs/protocol.md, section 2): `fault` names the rule, the text says how."""

    def __init__(self, fault: str, text: str) -> None:
        super().__init__(text)
        self.fault = fault


def data_header(stream: int, length: int) -> bytes:
    """The header of a DATA frame of `length` bytes."""
    head = _pack_head(MAGIC, DATA, 0, stream, length)
    return head + _pack_u32(_crc32(head))


def control_frame(kind: int, stream: int, payload: int | bytes = b"") -> bytes:
    """A whole frame of a type other than DATA; an int stands for the u32 payload of OPEN, RESET and CREDIT."""
    body = _pack_u32(payload) if isinstance(payload, int) else payload
    head = _pack_head(MAGIC, kind, 0, stream, len(body))
    return head + _pack_u32(_crc32(head)) + body


def _sealed(block: bytes) -> bytes:
    return block + _pack_u32(_crc32(block))


def _is_sealed(block: bytes | bytearray | memoryview) -> bool:
    return _crc32(block[: HELLO_SIZE - 4]) == int.from_bytes(block[HELLO_SIZE - 4 :], "little")


@dataclass(frozen=True, slots=True)
class Hello:
    """What the host says first. `nonce` and `next_sentinel` are random unless given."""

    sentinel: bytes
    nonce: bytes = field(default_factory=lambda: os.urandom(16))
    next_sentinel: bytes = field(default_factory=lambda: os.urandom(16))
    major: int = MAJOR
    minor: int = MINOR
    flags: int = 0

    def encode(self) -> bytes:
        """The 64 bytes on the wire."""
        return _sealed(
            _HELLO.pack(self.sentinel, self.major, self.minor, self.flags, self.nonce, self.next_sentinel, 0)
        )

    @classmethod
    def decode(cls, block: bytes | bytearray | memoryview) -> Hello | None:
        """Read 64 bytes; None where the crc is wrong, since they are then some other data."""
        if len(block) != HELLO_SIZE or not _is_sealed(block):
            return None
        sentinel, major, minor, flags, nonce, next_sentinel, _reserved = _HELLO.unpack_from(block)
        return cls(sentinel, nonce, next_sentinel, major, minor, flags)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the guest answers to a HELLO. `status` 0: accepted; 1: refused, another major version."""

    nonce: bytes
    major: int = MAJOR
    minor: int = MINOR
    status: int = 0
    schema: bytes = bytes(16)
    boot_id: bytes = bytes(16)

    def encode(self) -> bytes:
        """The 64 bytes on the wire."""
        return _sealed(_ANSWER.pack(self.nonce, self.major, self.minor, self.status, self.schema, self.boot_id, 0))

    @classmethod
    def decode(cls, block: bytes | bytearray | memoryview) -> Answer | None:
        """Read 64 bytes; None where the crc is wrong, since they are then some other data."""
        if len(block) != HELLO_SIZE or not _is_sealed(block):
            return None
        nonce, major, minor, status, schema, boot_id, _reserved = _ANSWER.unpack_from(block)
        return cls(nonce, major, minor, status, schema, boot_id)
