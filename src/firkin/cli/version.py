"""`firkin version`."""

from __future__ import annotations

import platform
import sys

import click

from firkin import __version__
from firkin.cli.output import FORMAT, print_one

__all__ = ["command"]


@click.command("version")
@FORMAT
def command(form: str) -> None:
    """Print the version of Firkin and of what runs it.

    \b
    firkin version --format '{{.firkin}}'
    """
    facts = {
        "firkin": __version__,
        "python": platform.python_version(),
        "platform": sys.platform,
        "machine": platform.machine(),
    }
    print_one(facts, form, "\n".join(f"{name:<10}{value}" for name, value in facts.items()))
