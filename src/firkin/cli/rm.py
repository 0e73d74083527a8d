"""`firkin rm`."""

from __future__ import annotations

import click

from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="Kill it first: without that only ended ones are removed.")
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...], force: bool) -> None:
    """Remove containers. One that has ended is gone already, so this is for live ones, with --force.

    \b
    firkin rm -f box
    """
    drive(_remove(containers, force))


async def _remove(names: tuple[str, ...], force: bool) -> None:
    from firkin.core.live import find_live
    from firkin.core.remote import RemoteContainer
    from firkin.errors import StateError
    from firkin.types.state import StateDirs

    dirs = StateDirs.default()
    found = [find_live(dirs, name) for name in names]
    for live in found:
        if not force:
            raise StateError(f"container {live.id} runs", hint="`firkin stop` it, or --force")
        async with await RemoteContainer.connect(live) as container:
            await container.stop(0)
        click.echo(live.id)
