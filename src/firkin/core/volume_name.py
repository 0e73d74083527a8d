"""What a volume may be called."""

from __future__ import annotations

import re

from firkin.errors import InvalidInputError

__all__ = ["check_volume_name", "is_volume_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def is_volume_name(name: str) -> bool:
    """Whether a volume can have it; a folder whose name begins with a dot is none."""
    return _NAME.fullmatch(name) is not None


def check_volume_name(name: str) -> str:
    """`name`. Raises `InvalidInputError` where no volume can have it."""
    if not is_volume_name(name):
        raise InvalidInputError(
            f"{name!r} is not a volume's name",
            value=name,
            hint="up to 128 letters, digits, _ . -; a path begins with / or .",
        )
    return name
