"""Text that others chose, for a line of a terminal."""

from __future__ import annotations

__all__ = ["escaped"]


def escaped(text: str) -> str:
    r"""`text` as a terminal shows it and obeys none of it: `\n` and `\x1b` stand for what is not printable."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
