"""`firkin attach`."""

from __future__ import annotations

import click

from firkin.cli._live import connected
from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("attach")
@click.option(
    "--detach-keys",
    "keys",
    default="ctrl-p,ctrl-q",
    show_default=True,
    metavar="KEYS",
    help="Keys that leave it running, parted by commas; empty for none.",
)
@click.option("--no-stdin", is_flag=True, help="Only see what it writes.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Send signals on to it (default: yes).")
@click.argument("container")
def command(container: str, keys: str, no_stdin: bool, sig_proxy: bool) -> int:
    """Join a live container's first process: see what it writes from now on, type into it. Several may at a time.

    Ends with it, and with its exit code; or when the detach keys are typed.

    \b
    firkin attach box
    firkin attach --no-stdin box
    """
    return drive(_attach(container, keys, not no_stdin, sig_proxy))


async def _attach(name: str, keys: str, stdin: bool, proxy: bool) -> int:
    from firkin.core.attach import foreground
    from firkin.core.detach_keys import Detached, DetachKeys

    chosen = DetachKeys.parse(keys)
    async with connected(name) as container:
        document = await container.inspect()
        stdin = stdin and document["stdin_open"]
        process = await container.attach(stdin=stdin, terminal=document["terminal"], keys=chosen)
        try:
            status = await foreground(process, terminal=document["terminal"] and stdin, own=False, proxy=proxy)
        except Detached:
            click.echo(f"\nfirkin: detached; `firkin attach {container.container.id}` joins it again", err=True)
            return 0
        return status.shell_code
