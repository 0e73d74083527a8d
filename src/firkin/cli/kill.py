"""`firkin kill`."""

from __future__ import annotations

import click

from firkin.cli._live import each
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
    from firkin.types.signals import Signal

    number = Signal.parse(signal)
    drive(each(containers, lambda container: container.kill(number)))
