"""`firkin inspect`."""

from __future__ import annotations

import json
from typing import Any

import click

from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("inspect")
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...]) -> None:
    """Print what is known of live containers, as a JSON array.

    \b
    firkin inspect box
    """
    click.echo(json.dumps(drive(_inspect(containers)), indent=2))


async def _inspect(names: tuple[str, ...]) -> list[dict[str, Any]]:
    from firkin.core.live import find_live
    from firkin.core.remote import RemoteContainer
    from firkin.types.state import StateDirs

    documents = []
    for live in [find_live(StateDirs.default(), name) for name in names]:
        async with await RemoteContainer.connect(live) as container:
            documents.append(await container.inspect())
    return documents
