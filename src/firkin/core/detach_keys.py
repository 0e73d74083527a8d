"""The keys that leave an attached terminal, as Docker spells them: `ctrl-p,ctrl-q`."""

from __future__ import annotations

from typing import Self

from firkin.errors import FirkinError, InvalidInputError

__all__ = ["DEFAULT_KEYS", "DetachKeys", "Detached"]

DEFAULT_KEYS = "ctrl-p,ctrl-q"
_PREFIX = "ctrl-"
# Ctrl with @ to _ gives the codes 0 to 31 (ASCII).
_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"
_MOST = 16


class Detached(FirkinError):
    """The keys were typed."""


class DetachKeys:
    """Looks for a sequence of keys in what is typed, a chunk at a time."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read keys parted by commas, each a character or `ctrl-` with one of `@ a-z [ \\ ] ^ _`.

        Empty: no keys. Raises `InvalidInputError`.
        """
        keys = text.split(",") if text else []
        codes = bytearray()
        for key in keys:
            control = key.removeprefix(_PREFIX)
            if len(key) == 1 and key.isascii():
                codes.append(ord(key))
            elif control != key and len(control) == 1 and control.lower() in _CONTROL:
                codes.append(_CONTROL.index(control.lower()))
            else:
                raise InvalidInputError(f"{key!r} is not a key", value=text, hint=f"as in {DEFAULT_KEYS}")
        if len(codes) > _MOST:
            raise InvalidInputError(f"{len(codes)} keys are too many", value=text, hint=f"at most {_MOST}")
        return cls(bytes(codes))

    def passed(self, data: bytes) -> bytes:
        """What of `data` goes on; the beginning of the sequence is held back until it is known to be none.

        Raises `Detached` at its end.
        """
        if not self._sequence:
            return data
        out = bytearray()
        for byte in data:
            while self._held and byte != self._sequence[self._held]:
                # The longest end of what is held, but not all of it, may be a beginning again.
                shorter = next(
                    size for size in range(self._held - 1, -1, -1)
                    if self._sequence[:size] == self._sequence[self._held - size : self._held]
                )  # fmt: skip
                out += self._sequence[: self._held - shorter]
                self._held = shorter
            if byte != self._sequence[self._held]:
                out.append(byte)
                continue
            self._held += 1
            if self._held == len(self._sequence):
                self._held = 0
                raise Detached("detached")
        return bytes(out)
