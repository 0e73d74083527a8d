"""Running a command's coroutine. asyncio is imported here, when there is one to run: small commands have none."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["drive"]

_T = TypeVar("_T")


def drive(work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work` to its end on an event loop of its own; its result."""
    try:
        import asyncio

        return asyncio.run(work)
    finally:
        # Where Ctrl-C came before it began, Python would complain that nobody awaited it.
        work.close()
