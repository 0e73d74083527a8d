"""Errors that somebody may ask for, and nobody has to."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

__all__ = ["quiet"]

_F = TypeVar("_F", bound=asyncio.Future[Any])


def quiet(future: _F) -> _F:
    """`future`, of whose error asyncio does not complain where nobody asks for it."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
