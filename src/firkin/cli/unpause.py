"""`firkin unpause`."""

from __future__ import annotations

import click

from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("unpause")
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...]) -> None:
    """Let paused containers go on, their clocks set to now.

    \b
    firkin unpause box
    """
    drive(_unpause(containers))


async def _unpause(names: tuple[str, ...]) -> None:
    from firkin.core.live import find_live
    from firkin.core.remote import RemoteContainer
    from firkin.types.state import StateDirs

    for live in [find_live(StateDirs.default(), name) for name in names]:
        async with await RemoteContainer.connect(live) as container:
            await container.unpause()
        click.echo(live.id)
