"""Printing what there is: a table for people, JSON for programs, a template for scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

__all__ = ["DOCUMENTS", "FORMAT", "print_documents", "print_one", "print_rows", "render"]

# Docker's `{{.ID}}` and `{{json .}}`, and no more of Go's language than that.
_PART = re.compile(r"\{\{\s*(?P<json>json\s+)?\.(?P<path>[\w.]*)\s*\}\}")
_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)
_ESCAPES = {r"\t": "\t", r"\n": "\n"}


class _Format(click.ParamType[str]):
    name = "format"

    def __init__(self, *names: str) -> None:
        self._names = names

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self._names and not _PART.search(value):
            wanted = (
                f"none of {', '.join(self._names)} and" if len(self._names) > 1 else f"neither {self._names[0]} nor"
            )
            self.fail(f"{value!r} is {wanted} a template as '{{{{.id}}}} {{{{.image}}}}'", param, ctx)
        return value


def _format(*names: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--format",
        "form",
        type=_Format(*names),
        default=names[0],
        metavar="|".join((*names, "TEMPLATE")),
        help="How to print it; in a template {{.name}} is a value of the JSON, {{json .}} all of it.",
    )


FORMAT = _format("table", "json")
DOCUMENTS = _format("json")
"""For what is printed as JSON to people, too."""


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


def print_documents(documents: Sequence[dict[str, Any]], form: str) -> None:
    """Print `documents` as a JSON array to be read, or each by a template."""
    if form == "json":
        click.echo(json.dumps(list(documents), indent=2))
    else:
        print_rows([], {}, form, documents)


def print_one(document: dict[str, Any], form: str, text: str) -> None:
    """Print one thing: as `text` for `table`, as a JSON object, or by a template."""
    click.echo(text if form == "table" else json.dumps(document) if form == "json" else render(form, document))


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
