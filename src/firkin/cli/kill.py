"""`firkin kill`."""

from __future__ import annotations

import click

from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("kill")
@click.option("-s", "--signal", "signal", default="KILL", help="Signal to send, by name or number.")
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...], signal: str) -> None:
    """Send a signal to the first process of live containers.

    \b
    firkin kill box
    firkin kill -s HUP box
    """
    drive(_kill(containers, signal))


async def _kill(names: tuple[str, ...], signal: str) -> None:
    from firkin.core.live import find_live
    from firkin.core.remote import RemoteContainer
    from firkin.types.signals import Signal
    from firkin.types.state import StateDirs

    number = Signal.parse(signal)
    found = [find_live(StateDirs.default(), name) for name in names]
    for live in found:
        async with await RemoteContainer.connect(live) as container:
            await container.kill(number)
        click.echo(live.id)
