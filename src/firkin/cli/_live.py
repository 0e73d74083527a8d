"""Live containers, as commands name them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from firkin.core.remote import RemoteContainer

__all__ = ["connected", "each"]


@asynccontextmanager
async def connected(name: str) -> AsyncIterator[RemoteContainer]:
    """The live container of that name, or whose id begins so. Raises `StateError`."""
    from firkin.core.live import find_live
    from firkin.core.remote import RemoteContainer
    from firkin.types.state import StateDirs

    async with await RemoteContainer.connect(find_live(StateDirs.default(), name)) as container:
        yield container


async def each(names: Sequence[str], act: Callable[[RemoteContainer], Awaitable[object]]) -> None:
    """Let `act` do its work on one after another, each name printed when it has; all are found before the first."""
    from firkin.core.live import find_live
    from firkin.core.remote import RemoteContainer
    from firkin.types.state import StateDirs

    for live in [find_live(StateDirs.default(), name) for name in names]:
        async with await RemoteContainer.connect(live) as container:
            await act(container)
        click.echo(live.id)
