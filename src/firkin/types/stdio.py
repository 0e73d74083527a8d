"""What a process's standard streams are joined to, and the size of its terminal."""

from __future__ import annotations

from enum import Enum
from typing import Self

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass

__all__ = ["DEFAULT_PTY_SIZE", "PtySize", "Stdio"]


class Stdio(Enum):
    """`NULL`: /dev/null. `PIPED`: the caller reads or writes it. `INHERIT`: the caller's own stream."""

    NULL = "null"
    PIPED = "piped"
    INHERIT = "inherit"


@dataclass(frozen=True, slots=True)
class PtySize:
    """A terminal's size in characters, 1 to 65535 each way (struct winsize, ioctl_tty(2)).

    Raises `InvalidInputError`.
    """

    columns: int = 80
    rows: int = 24

    def __post_init__(self) -> None:
        for name, value in (("columns", self.columns), ("rows", self.rows)):
            if not 1 <= value <= 0xFFFF:
                raise InvalidInputError(f"a terminal of {value} {name} is out of range", value=value, hint="1 to 65535")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `COLUMNSxROWS`. Raises `InvalidInputError`."""
        columns, _, rows = text.partition("x")
        if not all(part.isascii() and part.isdigit() and len(part) <= 5 for part in (columns, rows)):
            raise InvalidInputError(f"{text!r} is not a terminal's size", value=text, hint="write COLUMNSxROWS, 80x24")
        return cls(int(columns), int(rows))

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"


DEFAULT_PTY_SIZE = PtySize()
