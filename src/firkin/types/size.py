"""A number of bytes."""

from __future__ import annotations

import re
from typing import Self

from firkin.errors import InvalidInputError

__all__ = ["Size"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_TEXT = re.compile(r"\s*(\d{1,20}(?:\.\d{1,9})?)\s*(?:([kmgtp])(?:i?b)?|b)?\s*", re.IGNORECASE | re.ASCII)
# What an off_t can hold: no file, disk or memory is larger.
_LARGEST = (1 << 63) - 1


class Size(int):
    """Bytes, as an int. Every unit is a power of 1024, as in Docker's options."""

    __slots__ = ()

    def __new__(cls, value: int = 0) -> Self:
        """Raises `InvalidInputError` for less than nothing, or more than 2^63 - 1."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidInputError(
                f"a size is a whole number of bytes, not {value!r}", value=value, hint="Size.parse reads text"
            )
        if not 0 <= value <= _LARGEST:
            raise InvalidInputError(f"a size of {value} bytes is out of range", value=value, hint="0 to 2^63 - 1")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str | int) -> Self:
        """Read `512m`, `1GiB`, `1.5g`, `4096`: units b, k, m, g, t, p in any case, `iB` or `B` after them allowed.

        Raises `InvalidInputError`; a fraction needs a unit and is rounded down to a whole byte.
        """
        if isinstance(text, int):
            return cls(text)
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InvalidInputError(
                f"{text!r} is not a size", value=text, hint="write 512m, 1.5g, 1GiB or a number of bytes"
            )
        number, unit = match[1], (match[2] or "").lower()
        whole, point, fraction = number.partition(".")
        if point and not unit:
            raise InvalidInputError(f"{text!r} is not a whole number of bytes", value=text)
        return cls(int(whole + fraction) * _UNITS[unit] // 10 ** len(fraction))

    @classmethod
    def kib(cls, count: int) -> Self:
        """`count` x 2^10 bytes."""
        return cls(count << 10)

    @classmethod
    def mib(cls, count: int) -> Self:
        """`count` x 2^20 bytes."""
        return cls(count << 20)

    @classmethod
    def gib(cls, count: int) -> Self:
        """`count` x 2^30 bytes."""
        return cls(count << 30)

    @classmethod
    def tib(cls, count: int) -> Self:
        """`count` x 2^40 bytes."""
        return cls(count << 40)

    def __str__(self) -> str:
        """In units of 1024, at most one decimal: `512 B`, `1.5 KiB`, `16 GiB`."""
        value, units = float(self), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        while round(value, 1) >= 1024 and len(units) > 1:
            value /= 1024
            units.pop(0)
        return f"{value:.1f}".removesuffix(".0") + f" {units[0]}"

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)

    def __repr__(self) -> str:
        return f"Size({int(self)})"
