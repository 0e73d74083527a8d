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
    round. `mode` says who may connect where it appears; there, in a guest, it belongs to `uid` and `gid`.
    """

    host: Path
    guest: GuestPath
    into_guest: bool = True
    mode: int = 0o600
    uid: int = 0
    gid: int = 0

    @classmethod
    def parse(cls, text: str, *, into_guest: bool = True) -> Self:
        """Read `HOST:GUEST` where `into_guest`, else `GUEST:HOST`; then `:mode=660,uid=7,gid=8`, any of them.

        Raises `InvalidInputError`.
        """
        first, _, rest = text.partition(":")
        second, _, options = rest.partition(":")
        if not first or not second:
            raise InvalidInputError(
                f"{text!r} is not a pair of sockets", value=text, hint="write two paths with : between"
            )
        host, guest = (first, second) if into_guest else (second, first)
        return cls(Path(host).absolute(), GuestPath.destination(guest), into_guest, **_options(options, text))


def _options(options: str, text: str) -> dict[str, int]:
    found = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        base = {"mode": 8, "uid": 10, "gid": 10}.get(key)
        try:
            number = int(value, base) if base else -1
        except ValueError:
            number = -1
        if not 0 <= number < (0o1000 if key == "mode" else 1 << 32):
            raise InvalidInputError(
                f"{option!r} is no option of a socket", value=text, hint="write mode=660,uid=1000,gid=1000"
            )
        found[key] = number
    return found
