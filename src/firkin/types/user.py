"""Whom a process runs as."""

from __future__ import annotations

import re
from typing import Self

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass

__all__ = ["User"]

# One below 2^32 - 1, which chown and setresuid take for "leave as it is".
_LARGEST_ID = 0xFFFF_FFFE
# Wider than shadow's rule (upper case, dots, @): the name is only looked up in the image's files.
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]*\$?", re.ASCII)


@dataclass(frozen=True, slots=True)
class User:
    """A user by name or uid, a group by name or gid (empty: as the image's `/etc/passwd` has it), and further groups.

    Names are resolved in the guest, in the container's own files. Raises `InvalidInputError`.
    """

    user: str = ""
    group: str = ""
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "" in self.groups:
            raise InvalidInputError("a further group is empty", value=self.groups)
        for kind, part in (("user", self.user), ("group", self.group), *(("group", group) for group in self.groups)):
            if part:
                _check(kind, part)

    @classmethod
    def parse(cls, text: str, groups: tuple[str, ...] = ()) -> Self:
        """Read `NAME`, `UID`, `NAME:GROUP`, `UID:GID`, a mixture, or `:GROUP` (root with that group).

        Raises `InvalidInputError` that names the wrong part.
        """
        user, colon, group = text.partition(":")
        if colon and not group:
            raise InvalidInputError(f"the user {text!r} ends in a colon", value=text, hint="write USER or USER:GROUP")
        return cls(user, group, groups)

    def __str__(self) -> str:
        return f"{self.user}:{self.group}" if self.group else self.user


def _check(kind: str, part: str) -> None:
    if part.isascii() and part.isdigit():
        if len(part) > 10 or int(part) > _LARGEST_ID:
            raise InvalidInputError(
                f"the {kind} id {part[:24]} is out of range", value=part, hint=f"0 to {_LARGEST_ID}"
            )
    elif len(part) > 256 or not _NAME.fullmatch(part):
        raise InvalidInputError(
            f"the {kind} {part[:64]!r} is not a name", value=part, hint="letters, digits, _ . @ -, or a number"
        )
