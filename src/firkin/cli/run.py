"""`firkin run`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from firkin.cli._id_file import id_file
from firkin.cli._loop import drive
from firkin.cli.options import container_flags, inputs_from

if TYPE_CHECKING:
    from firkin.core.beginning import Beginning
    from firkin.core.container import AsyncContainer

__all__ = ["command"]


@click.command("run", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@container_flags
@click.option(
    "--rm", is_flag=True, help="Remove the container when it ends. Firkin always does; accepted for Docker's sake."
)
@click.option("-d", "--detach", is_flag=True, help="Leave it in the background and print its name.")
@click.option("--cidfile", metavar="FILE", help="Write the container's name to a file that is not there yet.")
@click.option("--sig-proxy/--no-sig-proxy", "proxy", default=True, help="Send signals on to it (default: yes).")
@click.option("--name", help="The container's name (default: random).")
@click.option("--timings", is_flag=True, help="Print the phases of the start to standard error.")
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(
    image: str,
    args: tuple[str, ...],
    rm: bool,
    detach: bool,
    cidfile: str | None,
    proxy: bool,
    name: str | None,
    timings: bool,
    **flags: Any,
) -> int:
    """Run a command in a new container, in a micro-VM of its own.

    \b
    firkin run --rm busybox echo hello
    firkin run -it debian bash
    cat data.csv | firkin run -i python:3 python -c 'import sys; print(len(sys.stdin.read()))'
    """
    with id_file(cidfile) as write_id:
        if detach:
            id = _detached(image, args, name, inputs_from(flags))
            write_id(id)
            click.echo(id)
            return 0
        from firkin.core.beginning import begin

        with begin(image, args, name=name, dirs=None, options=inputs_from(flags)) as begun:
            # QEMU starts: what is imported from here on costs no time of its own.
            return drive(_run(begun, timings, proxy, write_id))


def _detached(image: str, args: tuple[str, ...], name: str | None, inputs: Any) -> str:
    from firkin.cli._background import in_background

    def serve(started: Callable[[str], None]) -> Coroutine[Any, Any, None]:
        from firkin.core.detached import keep

        return keep(image, args, name=name, progress=_progress(), inputs=inputs, started=started)

    return in_background(serve)


def _progress() -> Any:
    from firkin.cli._progress import showing

    # Lines of a download would get between those of the container, which a program may read.
    return showing("auto") if sys.stderr.isatty() else None


async def _run(begun: Beginning, timings: bool, proxy: bool, write_id: Callable[[str], None]) -> int:
    from firkin.core.attach import foreground
    from firkin.core.container import AsyncContainer
    from firkin.core.launch import finish

    async with await finish(AsyncContainer, begun, _progress()) as container:
        write_id(container.id)
        if timings:
            _print_timings(container)
        status = await foreground(container.process, terminal=container.options.terminal, proxy=proxy)
    return status.shell_code


def _print_timings(container: AsyncContainer) -> None:
    for phase, milliseconds in container.timings.phases.items():
        print(f"{phase:<24}{milliseconds:8.1f} ms", file=sys.stderr)
