"""`firkin pull`: fetch an image from a registry."""

from __future__ import annotations

import asyncio

import click

from firkin.cli._progress import ProgressStyle, showing

__all__ = ["command"]


@click.command("pull")
@click.option("--platform", metavar="OS/ARCH", help="Another platform than this host's.")
@click.option("--convert/--no-convert", default=True, help="Make the root filesystem as the layers come (default).")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's id only.")
@click.option(
    "--progress", "style", type=click.Choice(["auto", "plain", "json", "none"]), default="auto", help="How to show it."
)
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True)
def command(
    platform: str | None, convert: bool, quiet: bool, style: ProgressStyle, references: tuple[str, ...]
) -> None:
    """Fetch images from their registries and name them."""
    for reference in references:
        asyncio.run(_pull(reference, platform, convert, quiet, style))


async def _pull(reference: str, platform: str | None, convert: bool, quiet: bool, style: ProgressStyle) -> None:
    from firkin.oci import DEFAULT_DISK, ImageStore
    from firkin.oci.registry import pull
    from firkin.types.platform import Platform
    from firkin.types.state import StateDirs

    store = ImageStore(StateDirs.default())
    with showing("none" if quiet else style) as progress:
        pulled = await pull(
            store,
            reference,
            platform=Platform.parse(platform) if platform else None,
            convert=DEFAULT_DISK if convert else None,
            progress=progress,
        )
    if pulled.rootfs is not None:
        pulled.rootfs.release()
    news = "" if pulled.changed else " (unchanged)"
    click.echo(pulled.image.image_id.hex if quiet else f"{pulled.image}: {pulled.image.digest}{news}")
