"""`firkin image warm`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from firkin.cli.options import container_flags, inputs_from
from firkin.cli.output import FORMAT, print_one
from firkin.errors import InvalidInputError

__all__ = ["command"]


@click.command("warm")
@container_flags
@click.option("--run", "words", metavar="COMMAND", help="Run this first, to its end or until it closes its output.")
@FORMAT
@click.argument("image")
def command(image: str, words: str | None, form: str, **flags: Any) -> None:
    """Save a VM that has IMAGE mounted, for `firkin run --warm` with the same options.

    The command after --run runs first: an interpreter that is loaded, a server that listens. It is remembered, for
    when the image changes and its warm image has to be made again.

    \b
    firkin image warm debian-python --run "python3 -c 'import json'"
    firkin image warm busybox
    """
    from firkin.core.blocking_pool import warm_image

    inputs = inputs_from(flags)
    for stream in ("stdin", "stdout", "stderr"):
        inputs.pop(stream, None)  # type: ignore[misc]
    try:
        first = shlex.split(words or "")
    except ValueError as error:
        raise InvalidInputError(
            f"{words!r} is not a command: {error}", value=words, hint="close what is quoted"
        ) from error
    made = warm_image(image, first, **inputs)
    document = {"image": made.image, "key": made.key, "command": made.command, "made": made.made}
    print_one(document, form, f"{made.image}  {made.key}  {'made' if made.made else 'was there'}")
