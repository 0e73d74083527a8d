"""`firkin ps`."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import click

from firkin.cli.output import FORMAT, print_rows

__all__ = ["command"]

_COLUMNS = {"id": "NAME", "image": "IMAGE", "command": "COMMAND", "age": "AGE", "pid": "OWNER"}


@click.command("ps")
@FORMAT
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("-a", "--all", "_everything", is_flag=True, help="The same list: what has ended is gone.")
def command(form: str, quiet: bool, _everything: bool) -> None:
    """List the live containers.

    \b
    firkin ps
    firkin ps --format '{{.id}} {{.image}}'
    firkin stop $(firkin ps -q)
    """
    from firkin.core.live import list_live
    from firkin.types.state import StateDirs

    containers = list_live(StateDirs.default())
    if quiet:
        for container in containers:
            click.echo(container.id)
        return
    now = datetime.now(UTC)
    documents = [container.as_document() for container in containers]
    rows = [
        {
            **document,
            "command": _shorten(shlex.join(container.command)),
            "age": _age((now - datetime.fromisoformat(container.created)).total_seconds()),
        }
        for container, document in zip(containers, documents, strict=True)
    ]
    print_rows(rows, _COLUMNS, form, documents)


def _shorten(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(max(seconds, 0))}s"
