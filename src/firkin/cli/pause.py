"""`firkin pause`."""

from __future__ import annotations

import click

from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("pause")
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...]) -> None:
    """Stop the VMs of live containers where they are; nothing in them runs until `unpause`.

    \b
    firkin pause box
    """
    drive(_pause(containers))


async def _pause(names: tuple[str, ...]) -> None:
    from firkin.core.live import find_live
    from firkin.core.remote import RemoteContainer
    from firkin.types.state import StateDirs

    for live in [find_live(StateDirs.default(), name) for name in names]:
        async with await RemoteContainer.connect(live) as container:
            await container.pause()
        click.echo(live.id)
