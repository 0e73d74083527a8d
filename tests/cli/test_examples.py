"""Each command's help has examples, and each example is a command line that it takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from firkin.cli.main import cli


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by what is typed for it."""
    above = click.Context(cli)
    for name in cli.list_commands(above):
        command = cli.get_command(above, name)
        assert command is not None
        if isinstance(command, click.Group):
            for below in command.list_commands(above):
                inner = command.get_command(above, below)
                assert inner is not None
                yield f"{name} {below}", inner
        else:
            yield name, command


def examples(command: click.Command) -> list[str]:
    """The lines of the help that are typed, each without its pipes and redirections."""
    lines = [line.strip() for line in (command.help or "").splitlines()]
    typed = [line.rpartition("| ")[2] if " | firkin " in line else line for line in lines]
    return [re.sub(r"\$\(.*?\)", "box", re.split(r" [|<>] ", line)[0]) for line in typed if line.startswith("firkin ")]


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_how_it_is_used(name: str) -> None:
    command = COMMANDS[name]
    shown = examples(command)
    assert shown, f"`firkin {name} --help` has no example"
    own = [words for words in map(shlex.split, shown) if " ".join(words[1:]).startswith((name, name.split()[-1]))]
    assert own
    for words in own:
        depth = 1 + len(name.split()) if " ".join(words[1:]).startswith(name) else 2
        context = command.make_context(name, words[depth:])
        assert context.params is not None
