"""`firkin stop`."""

from __future__ import annotations

import click

from firkin.cli._live import each
from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("stop")
@click.option("-t", "--time", "grace", type=click.FloatRange(min=0), default=10.0, help="Seconds before SIGKILL.")
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...], grace: float) -> None:
    """Stop live containers: their stop signal, then SIGKILL. Returns as soon as they are gone.

    \b
    firkin stop box
    firkin stop -t 2 $(firkin ps -q)
    """
    drive(each(containers, lambda container: container.stop(grace)))
