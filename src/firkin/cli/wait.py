"""`firkin wait`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from firkin.cli._loop import drive

if TYPE_CHECKING:
    from firkin.core.live import LiveContainer

__all__ = ["command"]


@click.command("wait")
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...]) -> None:
    """Wait until live containers end and print their exit codes, in the order of their names here.

    \b
    firkin wait box
    """
    for code in drive(_wait(containers)):
        click.echo(code)


async def _wait(names: tuple[str, ...]) -> list[int]:
    from firkin.core.live import find_live
    from firkin.types.state import StateDirs

    found = [find_live(StateDirs.default(), name) for name in names]
    # All at once: one that ended while another is waited for could not be asked any more.
    import asyncio

    return await asyncio.gather(*map(_code, found))


async def _code(live: LiveContainer) -> int:
    from firkin.core.remote import RemoteContainer

    async with await RemoteContainer.connect(live) as container:
        return (await container.wait()).shell_code
