"""`firkin push`: upload an image to a registry."""

from __future__ import annotations

import click

from firkin.cli._loop import drive
from firkin.cli._progress import ProgressStyle, showing

__all__ = ["command"]


@click.command("push")
@click.option("--platform", metavar="OS/ARCH", help="One platform of an index only.")
@click.option("--chunk", metavar="SIZE", help="Upload larger blobs in chunks of SIZE (such as 64m).")
@click.option("-q", "--quiet", is_flag=True, help="Print the digest only.")
@click.option(
    "--progress", "style", type=click.Choice(["auto", "plain", "json", "none"]), default="auto", help="How to show it."
)
@click.argument("source", metavar="IMAGE")
@click.argument("destination", required=False)
def command(
    platform: str | None, chunk: str | None, quiet: bool, style: ProgressStyle, source: str, destination: str | None
) -> None:
    """Upload IMAGE to its registry, or as DESTINATION.

    \b
    firkin push localhost/app registry.example.org/app:1
    """
    drive(_push(source, destination, platform, chunk, quiet, style))


async def _push(
    source: str, destination: str | None, platform: str | None, chunk: str | None, quiet: bool, style: ProgressStyle
) -> None:
    from firkin.oci import ImageStore
    from firkin.oci.registry.push import push
    from firkin.types.platform import Platform
    from firkin.types.size import Size
    from firkin.types.state import StateDirs

    with showing("none" if quiet else style) as progress:
        pushed = await push(
            ImageStore(StateDirs.default()),
            source,
            destination,
            platform=Platform.parse(platform) if platform else None,
            chunk=Size.parse(chunk) if chunk else None,
            progress=progress,
        )
    click.echo(str(pushed.digest) if quiet else f"{pushed.reference.familiar()}: {pushed.digest}")
