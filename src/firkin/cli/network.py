"""`firkin network`."""

from __future__ import annotations

import json

import click

from firkin.cli._live import connected
from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("network")
@click.option("--allow-net", multiple=True, metavar="CIDR[:PORT[/PROTO]]", help="Reach only this, and what else is.")
@click.option("--deny-net", multiple=True, metavar="CIDR[:PORT[/PROTO]]", help="Never reach this; `all`: everything.")
@click.option("--allow-domain", multiple=True, metavar="NAME", help="Reach only this name, or all below it by *.NAME.")
@click.option("--default", "default", is_flag=True, help="Back to the public Internet and nothing else.")
@click.option("--refused", is_flag=True, help="Print what was refused, one JSON line each.")
@click.argument("container")
def command(
    container: str,
    allow_net: tuple[str, ...],
    deny_net: tuple[str, ...],
    allow_domain: tuple[str, ...],
    default: bool,
    refused: bool,
) -> None:
    """Print a live container's network as JSON, or replace all that it may reach.

    Connections that are not allowed any more are cut.

    \b
    firkin network box
    firkin network --deny-net all --allow-domain example.com box
    """
    from firkin.errors import InvalidInputError
    from firkin.network.policy import Policy

    policy = Policy.of(allow_net=allow_net, deny_net=deny_net, allow_domain=allow_domain)
    replaced = policy != Policy()
    if replaced + default + refused > 1:
        raise InvalidInputError("rules, --default and --refused exclude one another", hint="give one kind")
    if refused:
        _print_refused(container)
    else:
        drive(_network(container, policy if replaced or default else None))


async def _network(name: str, policy: object) -> None:
    from firkin.network.policy import Policy

    async with connected(name) as container:
        if isinstance(policy, Policy):
            await container.set_network_policy(policy)
            click.echo(container.container.id)
        else:
            click.echo(json.dumps((await container.inspect())["network"], indent=2))


def _print_refused(name: str) -> None:
    from firkin.core.live import find_live
    from firkin.core.networking import REFUSED
    from firkin.types.state import StateDirs

    folder = find_live(StateDirs.default(), name).folder
    for path in ((folder / REFUSED).with_suffix(".old"), folder / REFUSED):
        if path.exists():
            click.echo(path.read_text(), nl=False)
