"""`firkin snapshot`: create, ls, inspect, rm, export, import."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from firkin.cli.output import FORMAT, print_rows

__all__ = ["command"]

_COLUMNS = {"name": "NAME", "image": "IMAGE", "created": "CREATED", "size": "SIZE", "memory": "MEMORY"}


@click.group("snapshot")
def command() -> None:
    """Saved containers: memory, processes and disks of one instant.

    \b
    firkin snapshot create web before-upgrade
    firkin restore before-upgrade
    """


@command.command("create")
@click.argument("container")
@click.argument("name")
@click.option("--stop", is_flag=True, help="Stop the container once it is saved.")
@FORMAT
def create(container: str, name: str, stop: bool, form: str) -> None:
    """Save the live CONTAINER as NAME; it goes on, unless --stop."""
    from firkin.cli._loop import drive

    report = drive(_create(container, name, stop))
    if form == "json":
        click.echo(json.dumps(report))
        return
    click.echo(name)
    for disk in report["disks"]:
        click.echo(f"  {disk['file']}: {disk['method']}, {disk['bytes']} bytes, {disk['seconds']:.3f} s", err=True)
    click.echo(f"  it stood still for {report['paused'] * 1e3:.0f} ms of {report['seconds'] * 1e3:.0f}", err=True)


async def _create(container: str, name: str, stop: bool) -> dict[str, Any]:
    from firkin.core.live import find_live
    from firkin.core.remote import RemoteContainer
    from firkin.types.state import StateDirs

    async with await RemoteContainer.connect(find_live(StateDirs.default(), container)) as remote:
        return await remote.snapshot(name, stop=stop)


@command.command("ls")
@FORMAT
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
def ls(form: str, quiet: bool) -> None:
    """List the snapshots."""
    from firkin.types import Size

    found = list(_snapshots())
    if quiet:
        for info in found:
            click.echo(info.name)
    elif form == "json":
        print_rows([info.as_document() for info in found], _COLUMNS, form)
    else:
        sizes = [{"size": str(Size(info.bytes)), "memory": str(Size(info.memory))} for info in found]
        rows = [info.as_document() | size for info, size in zip(found, sizes, strict=True)]
        print_rows([row | {"created": row["created"][:19]} for row in rows], _COLUMNS, form)


@command.command("inspect")
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...]) -> None:
    """Print what snapshots need and hold, as JSON."""
    snapshots = _snapshots()
    click.echo(json.dumps([snapshots.info(name).as_document() for name in names], indent=2))


@command.command("rm")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Remove snapshots. Clones of them run on."""
    snapshots = _snapshots()
    for name in names:
        snapshots.remove(name)
        click.echo(name)


def _snapshots() -> Any:
    from firkin.core.snapshots import Snapshots
    from firkin.types.state import StateDirs

    return Snapshots(StateDirs.default())


@command.command("export")
@click.argument("name")
@click.option("-o", "--output", metavar="FILE", help="Where to (default: NAME.firkin); - for standard output.")
def export_(name: str, output: str | None) -> None:
    """Write a snapshot as one file, for another host like this one."""
    from firkin.core.portable import export_snapshot
    from firkin.types.state import StateDirs

    if output == "-":
        export_snapshot(name, sys.stdout.buffer, StateDirs.default())
        return
    path = Path(output or f"{name}.firkin").absolute()
    export_snapshot(name, path, StateDirs.default())
    click.echo(path)


@command.command("import")
@click.argument("file", type=click.File("rb"))
@click.argument("name")
def import_(file: Any, name: str) -> None:
    """Read FILE (- for standard input) and keep the snapshot in it as NAME, once all of it is verified."""
    from firkin.core.portable import import_snapshot
    from firkin.types.state import StateDirs

    import_snapshot(file, name, StateDirs.default())
    click.echo(name)
