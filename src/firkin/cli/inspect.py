"""`firkin inspect`."""

from __future__ import annotations

from typing import Any

import click

from firkin.cli._live import connected
from firkin.cli._loop import drive
from firkin.cli.output import DOCUMENTS, print_documents

__all__ = ["command"]


@click.command("inspect")
@DOCUMENTS
@click.argument("containers", nargs=-1, required=True)
def command(containers: tuple[str, ...], form: str) -> None:
    """Print what is known of live containers, as a JSON array.

    \b
    firkin inspect box
    firkin inspect --format '{{json .}}' box
    """
    print_documents(drive(_inspect(containers)), form)


async def _inspect(names: tuple[str, ...]) -> list[dict[str, Any]]:
    documents = []
    for name in names:
        async with connected(name) as container:
            documents.append(await container.inspect())
    return documents
