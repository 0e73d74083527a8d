"""The directive `command-line`: the help of every command, as `firkin --help` prints it when the pages are made."""

from __future__ import annotations

from collections.abc import Iterator

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from firkin.cli.main import cli

_WIDTH = 100


def helps(command: click.Command = cli, path: str = "firkin") -> Iterator[tuple[str, str]]:
    """Each command's name with its help, groups before their commands. Hidden ones are left out."""
    context = click.Context(command, info_name=path, max_content_width=_WIDTH, terminal_width=_WIDTH)
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from helps(below, f"{path} {name}")


class CommandLine(Directive):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        return [self._section(path, text) for path, text in helps()]

    def _section(self, path: str, text: str) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(path)], names=[path])
        section += nodes.title(text=path)
        block = nodes.literal_block(text, text)
        block["language"] = "text"
        section += block
        self.state.document.note_explicit_target(section)
        return section


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
