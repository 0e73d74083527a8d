"""Printing lists: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

__all__ = ["FORMAT", "print_rows"]

FORMAT = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print it."
)


def print_rows(rows: Sequence[dict[str, Any]], columns: dict[str, str], form: str) -> None:
    """Print `rows`; `columns` maps a key to its heading. JSON has every key, a table the columns, tab-friendly."""
    if form == "json":
        click.echo(json.dumps(list(rows)))
        return
    lines = [tuple(columns.values()), *(tuple(str(row[key]) for key in columns) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
