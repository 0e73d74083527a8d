"""Resource limits of a process, getrlimit(2)."""

from __future__ import annotations

from typing import Self

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass

__all__ = ["Rlimit"]

# fmt: off
_KINDS = frozenset((
    "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE",
    "NICE", "NOFILE", "NPROC", "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK",
))
# fmt: on
_INFINITY = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Rlimit:
    """One limit: `kind` is Linux's name (`RLIMIT_NOFILE`; any case, prefix optional), the values in that limit's unit.

    `hard` is `soft` where it is not given; 2^64 - 1 is RLIM_INFINITY, no limit. Raises `InvalidInputError`.
    """

    kind: str
    soft: int
    hard: int = -1

    def __post_init__(self) -> None:
        name = self.kind.upper().removeprefix("RLIMIT_")
        if name not in _KINDS:
            raise InvalidInputError(
                f"{self.kind!r} is not a resource limit",
                value=self.kind,
                hint=f"one of {', '.join(sorted(_KINDS)).lower()}",
            )
        object.__setattr__(self, "kind", f"RLIMIT_{name}")
        if self.hard == -1:
            object.__setattr__(self, "hard", self.soft)
        for value in (self.soft, self.hard):
            if not 0 <= value <= _INFINITY:
                raise InvalidInputError(
                    f"the limit {name.lower()} of {value} is out of range", value=value, hint="0 to 2^64 - 1"
                )
        if self.soft > self.hard:
            raise InvalidInputError(
                f"the soft limit {name.lower()} of {self.soft} is above the hard one of {self.hard}", value=self.soft
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read Docker's `--ulimit`: `nofile=1024`, `nofile=1024:2048`; `-1` or `unlimited` is no limit.

        Raises `InvalidInputError`.
        """
        kind, equals, values = text.partition("=")
        soft, colon, hard = values.partition(":")
        if not equals or not soft or (colon and not hard):
            raise InvalidInputError(
                f"{text!r} is not a resource limit", value=text, hint="write KIND=SOFT or KIND=SOFT:HARD"
            )
        return cls(kind, _number(soft), _number(hard or soft))

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.kind.removeprefix('RLIMIT_').lower()}={self.soft}:{self.hard}"


def _number(text: str) -> int:
    if text in ("-1", "unlimited"):
        return _INFINITY
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise InvalidInputError(f"{text!r} is not a limit", value=text, hint="a number, or unlimited")
    return int(text)
