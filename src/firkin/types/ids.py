"""Names of containers, processes and pods: three types, so that one can't be passed for another."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Self

from firkin.errors import InvalidInputError

__all__ = ["ContainerId", "PodId", "ProcessId"]

_LONGEST = 64
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]")
_NOT_IN_HOSTNAME = re.compile(r"[^A-Za-z0-9-]+")
# RFC 1123 lets a label have 63 characters.
_LONGEST_LABEL = 63


class _Id(str):
    """1 to 64 characters of `[A-Za-z0-9_.-]`, but not `.` or `..`, which would name a folder."""

    __slots__ = ()
    _what = "id"

    def __new__(cls, value: str) -> Self:
        """Raises `InvalidInputError`: `value` is empty, too long, or has forbidden characters, which are named."""
        if type(value) is cls:
            return value
        if not isinstance(value, str):
            raise InvalidInputError(f"a {cls._what} is text, not {type(value).__name__}", value=value)
        if not value:
            raise InvalidInputError(f"the {cls._what} is empty", value=value, hint="give 1 to 64 characters")
        if len(value) > _LONGEST:
            raise InvalidInputError(
                f"the {cls._what} {value[:16]!r}… is too long: {len(value)} characters", value=value, hint="at most 64"
            )
        if bad := _FORBIDDEN.findall(value):
            raise InvalidInputError(
                f"the {cls._what} {value!r} has forbidden characters: {''.join(sorted(set(bad)))!r}",
                value=value,
                hint="use A-Z a-z 0-9 _ . -",
            )
        if value in (".", ".."):
            raise InvalidInputError(f"the {cls._what} {value!r} names a folder", value=value, hint="choose another")
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str.__repr__(self)})"


class ContainerId(_Id):
    """The name of a container."""

    __slots__ = ()
    _what = "container id"

    @classmethod
    def random(cls, draw: Callable[[int], str] = secrets.token_hex) -> Self:
        """Twelve hexadecimal digits, one of them a letter: digits alone are no host name, and are drawn again."""
        while (name := draw(6)).isdigit():
            pass
        return cls(name)

    def default_hostname(self) -> str:
        """A valid `Hostname` made of this id: other characters become `-`, digits alone get a `c` in front."""
        return _hostname_of(self)


class PodId(_Id):
    """The name of a pod."""

    __slots__ = ()
    _what = "pod id"

    def default_hostname(self) -> str:
        """A valid `Hostname` made of this id, as a container's."""
        return _hostname_of(self)


class ProcessId(_Id):
    """The name of a process in a container; its first one is `init`."""

    __slots__ = ()
    _what = "process id"


def _hostname_of(name: str) -> str:
    label = _NOT_IN_HOSTNAME.sub("-", name).strip("-")[:_LONGEST_LABEL].rstrip("-")
    if not label or label.isdigit():
        label = f"c{label}"[:_LONGEST_LABEL] if label else "container"
    return label
