"""`firkin logout`: forget the credentials for a registry."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("logout")
@click.argument("registry", default="docker.io")
def command(registry: str) -> None:
    """Forget what `firkin login` kept for REGISTRY (default: docker.io).

    \b
    firkin logout ghcr.io
    """
    from firkin.oci.registry.credentials import forget_credentials
    from firkin.oci.registry.settings import RegistrySettings

    known = forget_credentials(RegistrySettings.default(), registry)
    click.echo(f"Logged out of {registry}" if known else f"Not logged in to {registry}")
