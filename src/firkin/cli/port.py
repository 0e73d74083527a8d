"""`firkin port`."""

from __future__ import annotations

from typing import Any

import click

from firkin.cli._live import connected
from firkin.cli._loop import drive
from firkin.cli.output import FORMAT, print_rows

__all__ = ["command"]

_COLUMNS = {"guest": "GUEST", "host": "HOST"}


@click.command("port")
@FORMAT
@click.option("--add", multiple=True, metavar="[IP:][HOST:]GUEST[/udp]", help="Publish a port, and print only it.")
@click.option("--rm", "remove", multiple=True, metavar="[IP:][HOST:]GUEST[/udp]", help="Give a published port back.")
@click.argument("container")
@click.argument("guest_port", required=False, metavar="[GUEST[/udp]]")
def command(container: str, guest_port: str | None, add: tuple[str, ...], remove: tuple[str, ...], form: str) -> None:
    """List a live container's published ports, or change them.

    With GUEST only the host's addresses are printed that lead there.

    \b
    firkin port box
    firkin port --add 8080:80 box
    """
    rows = drive(_port(container, add, remove))
    if add or not remove:
        _print(rows, guest_port, form)


async def _port(name: str, add: tuple[str, ...], remove: tuple[str, ...]) -> list[dict[str, Any]]:
    async with connected(name) as container:
        for text in remove:
            await container.unpublish(text)
        if add:
            return [row for text in add for row in await container.publish(text)]
        network = (await container.inspect())["network"]
        return list(network["ports"]) if network else []


def _print(ports: list[dict[str, Any]], guest_port: str | None, form: str) -> None:
    if guest_port is not None:
        wanted = guest_port if "/" in guest_port else f"{guest_port}/tcp"
        ports = [port for port in ports if _guest(port) == wanted]
        if form == "table":
            for port in ports:
                click.echo(_host(port))
            return
    print_rows([{**port, "guest": _guest(port), "host": _host(port)} for port in ports], _COLUMNS, form)


def _guest(port: dict[str, Any]) -> str:
    return f"{port['guest_port']}/{port['protocol']}"


def _host(port: dict[str, Any]) -> str:
    ip = port["host_ip"]
    return f"[{ip}]:{port['host_port']}" if ":" in ip else f"{ip}:{port['host_port']}"
