"""A host name as RFC 1123, section 2.1, has it."""

from __future__ import annotations

import re
from typing import Self

from firkin.errors import InvalidInputError

__all__ = ["Hostname"]

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class Hostname(str):
    """1 to 253 bytes: labels of 1 to 63 letters and digits with inner `-`, joined by dots; not digits alone."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raises `InvalidInputError` that names what is wrong with `value`."""
        if type(value) is cls:
            return value
        if not value:
            raise InvalidInputError("the hostname is empty", value=value)
        if len(value) > 253:
            raise InvalidInputError(
                f"the hostname {value[:16]!r}… is too long: {len(value)} bytes", value=value, hint="at most 253"
            )
        for label in value.split("."):
            if not _LABEL.fullmatch(label):
                what = f"the label {label[:70]!r}" if label else "an empty label"
                raise InvalidInputError(
                    f"the hostname {value!r} has {what}",
                    value=value,
                    hint="a label has 1 to 63 letters or digits, and - inside",
                )
        if value.replace(".", "").isdigit():
            raise InvalidInputError(
                f"the hostname {value!r} is all digits", value=value, hint="it would be read as an address"
            )
        return super().__new__(cls, value)
