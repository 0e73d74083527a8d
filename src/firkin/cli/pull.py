"""`firkin pull`: fetch an image from a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from firkin.cli._loop import drive

if TYPE_CHECKING:
    from firkin.cli._progress import ProgressStyle
    from firkin.oci import ImageStore
    from firkin.oci.ensure import Pulled
    from firkin.types.platform import Platform

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
    """Fetch images from their registries and name them.

    \b
    firkin pull debian:12
    firkin pull --platform linux/arm64 -q alpine
    """
    from firkin.oci import DEFAULT_DISK, ImageStore
    from firkin.oci.registry.unchanged import unchanged
    from firkin.types.platform import Platform
    from firkin.types.state import StateDirs

    store = ImageStore(StateDirs.default())
    wanted = Platform.parse(platform) if platform else None
    size = DEFAULT_DISK if convert else None
    for reference in references:
        pulled = unchanged(store, reference, platform=wanted, convert=size)
        if pulled is None:
            pulled = drive(_pull(store, reference, wanted, size, "none" if quiet else style))
        if pulled.rootfs is not None:
            pulled.rootfs.release()
        news = "" if pulled.changed else " (unchanged)"
        click.echo(pulled.image.image_id.hex if quiet else f"{pulled.image}: {pulled.image.digest}{news}")


async def _pull(
    store: ImageStore, reference: str, platform: Platform | None, convert: int | None, style: ProgressStyle
) -> Pulled:
    from firkin.cli._progress import showing
    from firkin.oci.registry.pull import pull

    with showing(style) as progress:
        return await pull(store, reference, platform=platform, convert=convert, progress=progress)
