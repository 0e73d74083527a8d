"""`firkin unpause`."""

from __future__ import annotations

import click

from firkin.cli._live import each
from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("unpause")
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...]) -> None:
    """Let paused containers go on, their clocks set to now.

    \b
    firkin unpause box
    """
    drive(each(containers, lambda container: container.unpause()))
