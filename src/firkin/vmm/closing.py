"""Leaving an `async with` block: what is held is let go, and a failed clean-up is told beside the error before it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from firkin.errors import FirkinError

__all__ = ["Closing"]


class Closing:
    """An async context manager around `aclose`."""

    async def aclose(self) -> None:
        """Let go of everything. Safe to call again."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        except (FirkinError, OSError) as failed:
            if error is None:
                raise
            error.add_note(f"and the clean-up failed: {failed}")
