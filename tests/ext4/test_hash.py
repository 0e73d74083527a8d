"""The directory hash, computed in lanes, is that of a plain loop written after the kernel's, and debugfs's."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

from firkin.ext4 import make_empty
from firkin.ext4._hash import hash_names

MASK = 0xFFFFFFFF
SEED = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
ORDERS = ((0, 1, 2, 3, 4, 5, 6, 7), (1, 3, 5, 7, 0, 2, 4, 6), (3, 7, 2, 6, 1, 5, 0, 4))
SHIFTS = ((3, 7, 11, 19), (3, 5, 9, 13), (3, 9, 11, 15))
CONSTANTS = (0, 0x5A827999, 0x6ED9EBA1)


def rotated(value: int, shift: int) -> int:
    value &= MASK
    return (value << shift | value >> (32 - shift)) & MASK


def mixed(turn: int, x: int, y: int, z: int) -> int:
    return (z ^ (x & (y ^ z)), (x & y) + ((x ^ y) & z), x ^ y ^ z)[turn]


def reference(name: bytes) -> int:
    state = list(SEED)
    for at in range(0, len(name), 32):
        rest, part = bytes((len(name) - at,)), name[at : at + 32]
        odd = len(part) % 4
        whole, tail = part[: len(part) - odd], part[len(part) - odd :]
        words = struct.unpack(">8I", (whole + (tail.rjust(4, rest) if tail else b"")).ljust(32, rest))
        a, b, c, d = state
        for turn in range(3):
            for step, word in enumerate(ORDERS[turn]):
                total = a + mixed(turn, b, c, d) + words[word] + CONSTANTS[turn]
                a, b, c, d = d, rotated(total, SHIFTS[turn][step % 4]), b, c
        state = [(old + new) & MASK for old, new in zip(state, (a, b, c, d), strict=True)]
    return state[1] & ~1


def test_lanes_give_what_a_loop_gives() -> None:
    source = random.Random(7)
    names = [source.randbytes(length) for length in range(1, 256) for _ in range(4)]
    assert hash_names(names, bytes(16)) == [reference(name) for name in names]


def test_debugfs_agrees(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_empty(image, 1 << 20)
    for name in ("a", "file-000000000001.txt", "n" * 200):
        command = ["debugfs", "-R", f"dx_hash -h half_md4 {name}", image]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        (expected,) = hash_names([name.encode()], bytes(16))
        assert f"is 0x{expected:08x} " in shown


def test_the_seed_matters() -> None:
    assert hash_names([b"name"], b"seed" * 4) != hash_names([b"name"], bytes(16))
