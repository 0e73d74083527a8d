"""`firkin pause`."""

from __future__ import annotations

import click

from firkin.cli._live import each
from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("pause")
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...]) -> None:
    """Stop the VMs of live containers where they are; nothing in them runs until `unpause`.

    \b
    firkin pause box
    """
    drive(each(containers, lambda container: container.pause()))
