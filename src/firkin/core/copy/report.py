"""What a copy did, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from firkin.escaped import escaped
from firkin.types import Size

__all__ = ["COPY_LIMIT", "MAX_ENTRIES", "CopyReport", "Notes", "shown"]

# `bytes` is a field below.
Name: TypeAlias = bytes
COPY_LIMIT: Final = Size.gib(64)
"""The most that comes out of a container in one copy, unless the caller says otherwise."""
MAX_ENTRIES: Final = 1_000_000
"""The most files, folders and links that come out in one copy."""
_MAX_NOTES: Final = 100


@dataclass(frozen=True, slots=True)
class CopyReport:
    """`entries` counts files, folders and links, `bytes` their content. `notes` has a line for whatever is not an exact
    copy: a file that changed while it was read, one that vanished, a socket (left out). At most 100 are kept.
    """

    entries: int
    bytes: int
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Notes:
    """Collects the figures of a report."""

    entries: int = 0
    bytes: int = 0
    lines: list[str] = field(default_factory=list)

    def note(self, path: Name, what: str) -> None:
        """Say something about `path`, safe for a terminal."""
        if len(self.lines) < _MAX_NOTES:
            self.lines.append(f"{shown(path)} {what}")

    def report(self) -> CopyReport:
        """All of it."""
        return CopyReport(self.entries, self.bytes, tuple(self.lines))


def shown(path: Name) -> str:
    """A path for one line of text: no control characters, nothing that is not UTF-8, not too long."""
    return escaped(path[:400].decode(errors="backslashreplace"))
