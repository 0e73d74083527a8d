"""`firkin restore`."""

from __future__ import annotations

from contextlib import AsyncExitStack

import click

__all__ = ["command"]


@click.command("restore")
@click.argument("snapshot")
@click.option("-n", "--number", type=click.IntRange(1, 1024), default=1, help="How many clones (default: 1).")
@click.option("--name", help="The clone's name (default: random); of several, what their names begin with.")
@click.option("--hostname", help="The name inside, of a single clone (default: made of its own).")
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input of a single clone.")
def command(snapshot: str, number: int, name: str | None, hostname: str | None, interactive: bool) -> int:
    """Let clones of a saved container run on, and wait for them.

    The output of a single clone's first process is shown; of several, their names are printed.

    \b
    firkin restore before-upgrade
    firkin restore -n 10 --name worker before-upgrade
    """
    from firkin.cli._loop import drive

    if number == 1:
        return drive(_one(snapshot, name, hostname, interactive))
    if hostname is not None or interactive:
        raise click.UsageError("--hostname and --interactive are for a single clone")
    return drive(_several(snapshot, number, name))


async def _one(snapshot: str, name: str | None, hostname: str | None, interactive: bool) -> int:
    from firkin.core.attach import foreground
    from firkin.core.container import AsyncContainer
    from firkin.types import Stdio

    restored = AsyncContainer.restore(
        snapshot,
        name=name,
        hostname=hostname,
        stdin=Stdio.INHERIT if interactive else Stdio.NULL,
        stdout=Stdio.INHERIT,
        stderr=Stdio.INHERIT,
    )
    async with await restored as container:
        status = await foreground(container.process, terminal=container.options.terminal and interactive)
    return status.shell_code


async def _several(snapshot: str, number: int, name: str | None) -> int:
    import asyncio

    from firkin.core.container import AsyncContainer

    async with AsyncExitStack() as stack:
        clones = []
        for index in range(number):
            named = f"{name}-{index}" if name else None
            clone = await stack.enter_async_context(await AsyncContainer.restore(snapshot, name=named))
            clones.append(clone)
            click.echo(clone.id)
        statuses = await asyncio.gather(*(clone.wait() for clone in clones))
    return max(status.shell_code for status in statuses)
