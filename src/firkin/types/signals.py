"""Signals of Linux, by number or name."""

from __future__ import annotations

import re
import signal as _signal
from typing import Self

from firkin.errors import InvalidInputError

__all__ = ["Signal"]

# signal(7): the C libraries keep 32 and 33 for themselves; programs count from SIGRTMIN = 34 to SIGRTMAX = 64.
_RTMIN, _RTMAX = 34, 64
_REALTIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d{1,2}))?")
_NAMES = {name.removeprefix("SIG"): int(member) for name, member in _signal.Signals.__members__.items() if member < 32}


class Signal(int):
    """A signal's number, 1 to 64. `Signal.parse` reads `TERM`, `sigterm`, `15`, `RTMIN+3`; `str` gives `SIGTERM`."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        """Raises `InvalidInputError` where `value` is no signal of Linux."""
        if not isinstance(value, int) or not 1 <= value <= _RTMAX:
            raise InvalidInputError(f"{value!r} is not a signal", value=value, hint="1 to 64, or a name as TERM")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str | int) -> Self:
        """Read a number, or a name in any case with or without `SIG`. Raises `InvalidInputError`."""
        if isinstance(text, int):
            return cls(text)
        name = text.strip().upper()
        if name.isascii() and name.isdigit() and len(name) <= 4:
            return cls(int(name))
        name = name.removeprefix("SIG")
        if name in _NAMES:
            return cls(_NAMES[name])
        if match := _REALTIME.fullmatch(name):
            base = _RTMIN if match[1] == "MIN" else _RTMAX
            number = base + int(f"{match[2] or '+'}{match[3] or 0}")
            if _RTMIN <= number <= _RTMAX:
                return cls(number)
        raise InvalidInputError(f"{text!r} is not a signal", value=text, hint="a number, TERM, SIGTERM, RTMIN+1, …")

    def __str__(self) -> str:
        if self >= _RTMIN:
            return f"SIGRTMIN+{int(self) - _RTMIN}" if self > _RTMIN else "SIGRTMIN"
        try:
            return _signal.Signals(self).name
        except ValueError:
            return f"signal {int(self)}"

    def __repr__(self) -> str:
        return f"Signal({int(self)})"
