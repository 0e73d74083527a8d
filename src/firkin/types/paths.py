"""Paths in a guest, which are never resolved on the host."""

from __future__ import annotations

from typing import Self

from firkin.errors import InvalidInputError

__all__ = ["GuestPath"]

# PATH_MAX of Linux, its NUL included.
_LONGEST = 4096


class GuestPath(str):
    """An absolute path in the guest, without NUL, empty or `..` parts; `.` parts and a `/` at its end are dropped."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raises `InvalidInputError` that names what is wrong with `value`."""
        if type(value) is cls:
            return value
        text = str(value)
        if not text.startswith("/"):
            raise InvalidInputError(f"the guest path {text!r} is not absolute", value=value, hint="begin it with /")
        if "\0" in text:
            raise InvalidInputError(f"the guest path {text!r} has a NUL", value=value)
        if len(text.encode(errors="surrogateescape")) >= _LONGEST:
            raise InvalidInputError(
                f"the guest path {text[:32]!r}… is too long", value=value, hint="at most 4095 bytes"
            )
        parts = text.removesuffix("/")[1:].split("/") if text != "/" else []
        for part in parts:
            if part in ("", ".."):
                what = "a .. part" if part else "an empty part"
                raise InvalidInputError(f"the guest path {text!r} has {what}", value=value, hint="write it without")
        return super().__new__(cls, "/" + "/".join(part for part in parts if part != "."))

    @classmethod
    def destination(cls, value: str) -> Self:
        """A path to mount at: any but `/`. Raises `InvalidInputError`."""
        path = cls(value)
        if path == "/":
            raise InvalidInputError("a mount's destination may not be /", value=value, hint="the image is the root")
        return path

    @property
    def depth(self) -> int:
        """How many parts it has; 0 for `/`."""
        return 0 if self == "/" else self.count("/")

    def __truediv__(self, part: str) -> GuestPath:
        """The path of `part` below this one."""
        return GuestPath(f"/{part}" if self == "/" else f"{self}/{part}")
