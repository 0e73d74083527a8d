"""`firkin image warm`."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click

from firkin.cli.options import container_flags, inputs_from

__all__ = ["command"]


@click.command("warm", context_settings={"allow_interspersed_args": False})
@container_flags
@click.option("--run", "words", metavar="COMMAND", help="Run this first, to its end or until it closes its output.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(image: str, words: str | None, args: tuple[str, ...], form: str, **flags: Any) -> None:
    """Save a VM that has IMAGE mounted, for `firkin run --warm` with the same options.

    The command after --run, or its further words after IMAGE, runs first: an interpreter that is loaded, a server that
    listens. It is remembered, for when the image changes and its warm image has to be made again.

    \b
    firkin image warm debian-python --run "python3 -c 'import json'"
    firkin image warm busybox
    """
    from firkin.core.blocking_pool import warm_image

    inputs = inputs_from(flags)
    for stream in ("stdin", "stdout", "stderr"):
        inputs.pop(stream, None)  # type: ignore[misc]
    made = warm_image(image, [*shlex.split(words or ""), *args], **inputs)
    if form == "json":
        click.echo(json.dumps({"image": made.image, "key": made.key, "command": made.command, "made": made.made}))
    else:
        click.echo(f"{made.image}  {made.key}  {'made' if made.made else 'was there'}")
