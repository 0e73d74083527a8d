"""`firkin login`: keep credentials for a registry."""

from __future__ import annotations

import sys

import click

from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("login")
@click.option("-u", "--username", help="The user (asked for where it is missing).")
@click.option("-p", "--password", help="The password (visible to others in ps: better --password-stdin).")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.argument("registry", default="docker.io")
def command(username: str | None, password: str | None, password_stdin: bool, registry: str) -> None:
    """Check credentials with REGISTRY (default: docker.io) and keep them in Docker's config.json.

    \b
    firkin login ghcr.io -u me --password-stdin < token
    """
    from firkin.errors import InvalidInputError

    if password_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    elif (username is None or password is None) and not sys.stdin.isatty():
        raise InvalidInputError("a login needs a user and a password", hint="-u NAME --password-stdin")
    if username is None:
        username = str(click.prompt("Username", err=True))
    if password is None:
        password = str(click.prompt("Password", hide_input=True, err=True))
    drive(_login(registry, username, password))
    click.echo(f"Logged in to {registry}")


async def _login(registry: str, username: str, password: str) -> None:
    from firkin.oci.registry.client import RegistryClient
    from firkin.oci.registry.credentials import Credentials, store_credentials

    credentials = Credentials(username, password)
    async with RegistryClient() as client:
        await client.check_login(registry, credentials)
        store_credentials(client.settings, registry, credentials)
