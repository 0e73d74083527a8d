"""`firkin volume`: disk images that outlive containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from firkin.cli.output import DOCUMENTS, FORMAT, print_documents, print_rows
from firkin.errors import FirkinError, InvalidInputError

if TYPE_CHECKING:
    from firkin.core.volumes import Volume

__all__ = ["command"]

_COLUMNS = {"name": "NAME", "size": "SIZE", "bytes": "ON DISK", "in_use": "IN USE", "created": "CREATED"}
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Print names only.")


@click.group("volume")
def command() -> None:
    """Disk images that outlive containers: `-v NAME:/PATH` mounts one, and makes it where there is none."""


@command.command("create")
@click.argument("name", required=False, default="")
@click.option("--size", metavar="SIZE", default=None, help="Room in it (default: 16g); it takes what is written.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label.")
def create(name: str, size: str | None, labels: tuple[str, ...]) -> None:
    """Make a volume and print its name; a random one where none is given.

    \b
    firkin volume create --size 2g data
    """
    from firkin.core.volumes import Volume

    click.echo(Volume.create(name, size=size, labels=dict(map(_label, labels))).name)


@command.command("ls")
@FORMAT
@_QUIET
@click.option("--filter", "wanted", multiple=True, metavar="label=KEY[=VALUE]", help="Only those with this label.")
def ls(form: str, quiet: bool, wanted: tuple[str, ...]) -> None:
    """List the volumes.

    \b
    firkin volume ls -q
    """
    from firkin.core.volumes import Volume

    volumes = [volume for volume in Volume.all() if all(_fits(volume, text) for text in wanted)]
    if quiet:
        for volume in volumes:
            click.echo(volume.name)
        return
    documents = [volume.as_document() for volume in volumes]
    rows = [
        {
            **document,
            "size": str(volume.size),
            "bytes": str(volume.bytes),
            "in_use": "yes" if document["in_use"] else "no",
            "created": f"{volume.created:%Y-%m-%d %H:%M}",
        }
        for document, volume in zip(documents, volumes, strict=True)
    ]
    print_rows(rows, _COLUMNS, form, documents)


@command.command("inspect")
@DOCUMENTS
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], form: str) -> None:
    """Print all about volumes as JSON.

    \b
    firkin volume inspect data
    firkin volume inspect --format '{{.bytes}}' data
    """
    from firkin.core.volumes import Volume

    print_documents([Volume.get(name).as_document() for name in names], form)


@command.command("rm")
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="A volume that is not there is no error.")
def rm(names: tuple[str, ...], force: bool) -> None:
    """Remove volumes and what is in them; those in use stay.

    \b
    firkin volume rm data
    """
    from firkin.core.volumes import remove_volume
    from firkin.errors import NotFoundError

    failed: list[FirkinError] = []
    for name in names:
        try:
            remove_volume(name)
            click.echo(name)
        except FirkinError as error:
            if not (force and isinstance(error, NotFoundError)):
                failed.append(error)
    for earlier in failed[:-1]:
        click.echo(f"firkin: {earlier}", err=True)
    if failed:
        raise failed[-1]


@command.command("prune")
@_QUIET
def prune(quiet: bool) -> None:
    """Remove every volume that no container uses.

    \b
    firkin volume prune
    """
    from firkin.core.volumes import Volume
    from firkin.types import Size

    sizes = []
    for volume in Volume.prune():
        click.echo(volume.name)
        sizes.append(volume.size)
    if not quiet:
        click.echo(f"removed {len(sizes)}, with room for {Size(sum(sizes))}")


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        raise InvalidInputError(f"{text!r} is not a label", value=text, hint="write KEY=VALUE")
    return key, value


def _fits(volume: Volume, text: str) -> bool:
    what, _, label = text.partition("=")
    if what != "label" or not label:
        raise InvalidInputError(f"{text!r} is not a filter of volumes", value=text, hint="write label=KEY[=VALUE]")
    key, equals, value = label.partition("=")
    return key in volume.labels and (not equals or volume.labels[key] == value)
