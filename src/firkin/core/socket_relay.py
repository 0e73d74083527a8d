"""Unix sockets relayed between host and guest."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types import GuestPath

__all__ = ["SocketRelay"]


@dataclass(frozen=True, slots=True)
class SocketRelay:
    """A Unix socket relayed between host and guest: `into_guest`, the host's is there for the guest; else the other way
    round.
    """

    host: Path
    guest: GuestPath
    into_guest: bool = True
    mode: int = 0o600

    @classmethod
    def parse(cls, text: str, *, into_guest: bool = True) -> Self:
        """Read `HOST:GUEST` where `into_guest`, else `GUEST:HOST`. Raises `InvalidInputError`."""
        first, colon, second = text.partition(":")
        if not colon or not first or not second:
            raise InvalidInputError(
                f"{text!r} is not a pair of sockets", value=text, hint="write two paths with : between"
            )
        host, guest = (first, second) if into_guest else (second, first)
        return cls(Path(host).absolute(), GuestPath.destination(guest), into_guest)
