"""`firkin completion`."""

from __future__ import annotations

import click

__all__ = ["COMPLETE", "command"]

COMPLETE = "_FIRKIN_COMPLETE"
"""The variable by which the shell's function asks for completions (click's, "Shell Completion")."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print what makes a shell complete commands, options, and the names of containers, images and volumes.

    \b
    firkin completion bash > ~/.local/share/bash-completion/completions/firkin
    firkin completion zsh > "${fpath[1]}/_firkin"
    firkin completion fish > ~/.config/fish/completions/firkin.fish
    """
    from click.shell_completion import get_completion_class

    from firkin.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(cli, {}, "firkin", COMPLETE)
    # `source` would run the shell to ask for its version.
    click.echo(completion.source_template % completion.source_vars())
