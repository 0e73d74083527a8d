"""`firkin version`."""

from __future__ import annotations

import json
import platform
import sys

import click

from firkin import __version__

__all__ = ["command"]


@click.command("version")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
def command(form: str) -> None:
    """Print the version of Firkin and of what runs it.

    \b
    firkin version --format json
    """
    facts = {
        "firkin": __version__,
        "python": platform.python_version(),
        "platform": sys.platform,
        "machine": platform.machine(),
    }
    if form == "json":
        click.echo(json.dumps(facts))
    else:
        for name, value in facts.items():
            click.echo(f"{name:<10}{value}")
