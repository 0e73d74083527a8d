"""Printing lists: a table for people, JSON for programs, a template for scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

__all__ = ["FORMAT", "print_rows", "render"]

# Docker's `{{.ID}}` and `{{json .}}`, and no more of Go's language than that.
_PART = re.compile(r"\{\{\s*(?P<json>json\s+)?\.(?P<path>[\w.]*)\s*\}\}")
_ESCAPES = {r"\t": "\t", r"\n": "\n"}


class _Format(click.ParamType[str]):
    name = "format"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in ("table", "json") and not _PART.search(value):
            self.fail(f"{value!r} is none of table, json and a template as '{{{{.id}}}} {{{{.image}}}}'", param, ctx)
        return value


FORMAT = click.option(
    "--format",
    "form",
    type=_Format(),
    default="table",
    metavar="table|json|TEMPLATE",
    help="How to print it; in a template {{.name}} is a value of the JSON, {{json .}} all of it.",
)


def print_rows(
    rows: Sequence[dict[str, Any]],
    columns: dict[str, str],
    form: str,
    documents: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Print `rows`; `columns` maps a key to its heading. JSON and templates have every key of `documents` (default:
    the rows), a table the columns.
    """
    documents = rows if documents is None else documents
    if form == "json":
        click.echo(json.dumps(list(documents)))
        return
    if form != "table":
        for document in documents:
            click.echo(render(form, document))
        return
    lines = [tuple(columns.values()), *(tuple(str(row[key]) for key in columns) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def render(template: str, document: Mapping[str, Any]) -> str:
    r"""`template` with the values of `document` (keys in any case, `.` between levels), `\t` and `\n` undone.

    Raises `click.BadParameter` for a key that is not there.
    """

    def value(match: re.Match[str]) -> str:
        found: Any = document
        for key in filter(None, match["path"].split(".")):
            keys = {name.lower(): name for name in found} if isinstance(found, Mapping) else {}
            if key.lower() not in keys:
                raise click.BadParameter(f"there is no .{match['path']}; there are {', '.join(sorted(document))}")
            found = found[keys[key.lower()]]
        plain = isinstance(found, str | int | float) and not isinstance(found, bool)
        return str(found) if plain and not match["json"] else json.dumps(found)

    for escape, character in _ESCAPES.items():
        template = template.replace(escape, character)
    return _PART.sub(value, template)
