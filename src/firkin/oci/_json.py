"""Reading JSON that an image's author wrote: every field is checked for its type before anything relies on it."""

from __future__ import annotations

import json
from typing import Any

from firkin.errors import ImageError

__all__ = ["mapping", "number", "optional_text", "parse_object", "text_list", "text_map"]


def parse_object(content: bytes, what: str) -> dict[str, Any]:
    """Parse `content` to a JSON object; `what` names it in the error."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not JSON") from error
    if not isinstance(document, dict):
        raise ImageError(f"{what} is not a JSON object")
    return document


def mapping(document: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at `key`; empty where it is absent or null."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(key, "an object")
    return value


def optional_text(document: dict[str, Any], key: str) -> str:
    """The string at `key`; empty where it is absent or null."""
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(key, "a string")
    return value


def text_list(document: dict[str, Any], key: str) -> tuple[str, ...]:
    """The list of strings at `key`; empty where it is absent or null."""
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(key, "a list of strings")
    return tuple(value)


def text_map(document: dict[str, Any], key: str) -> dict[str, str]:
    """The object of strings at `key`; a null value in it counts as empty."""
    value = mapping(document, key)
    if not all(item is None or isinstance(item, str) for item in value.values()):
        raise _wrong(key, "an object of strings")
    return {name: item or "" for name, item in value.items()}


def number(document: dict[str, Any], key: str) -> int:
    """The whole number from 0 to 2^63-1 at `key`."""
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise _wrong(key, "a whole number")
    return value


def _wrong(key: str, kind: str) -> ImageError:
    return ImageError(f"the image's field {key[:60]!r} is not {kind}")
