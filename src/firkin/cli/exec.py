"""`firkin exec`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from firkin.cli._live import connected
from firkin.cli._loop import drive
from firkin.cli.options import inputs_from, process_flags

if TYPE_CHECKING:
    from firkin.core.option_inputs import ExecInputs

__all__ = ["command"]


@click.command("exec", context_settings={"allow_interspersed_args": False})
@process_flags
@click.argument("container")
@click.argument("args", nargs=-1, required=True, type=click.UNPROCESSED)
def command(container: str, args: tuple[str, ...], **flags: Any) -> int:
    """Run a further command in a live container, whoever started it.

    \b
    firkin exec box ps
    firkin exec -it box sh
    """
    from firkin.core.exec_config import ExecConfig

    return drive(_exec(container, ExecConfig.of(args, **cast("ExecInputs", inputs_from(flags)))))


async def _exec(name: str, config: Any) -> int:
    from firkin.core.attach import foreground

    async with connected(name) as container:
        process = await container.exec(config)
        return (await foreground(process, terminal=config.terminal)).shell_code
