"""`firkin snapshot`: create, ls, inspect, rm, export, import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from firkin.cli.output import DOCUMENTS, FORMAT, print_documents, print_one, print_rows

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
    """Save the live CONTAINER as NAME; it goes on, unless --stop.

    \b
    firkin snapshot create web before-upgrade
    """
    from firkin.cli._loop import drive

    report = drive(_create(container, name, stop))
    print_one(report, form, name)
    if form != "table":
        return
    for disk in report["disks"]:
        click.echo(f"  {disk['file']}: {disk['method']}, {disk['bytes']} bytes, {disk['seconds']:.3f} s", err=True)
    click.echo(f"  it stood still for {report['paused'] * 1e3:.0f} ms of {report['seconds'] * 1e3:.0f}", err=True)


async def _create(container: str, name: str, stop: bool) -> dict[str, Any]:
    from firkin.cli._live import connected

    async with connected(container) as remote:
        return await remote.snapshot(name, stop=stop)


@command.command("ls")
@FORMAT
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
def ls(form: str, quiet: bool) -> None:
    """List the snapshots.

    \b
    firkin snapshot ls
    firkin snapshot ls --format '{{.name}} {{.bytes}}'
    """
    from firkin.types import Size

    found = list(_snapshots())
    if quiet:
        for info in found:
            click.echo(info.name)
        return
    documents = [info.as_document() for info in found]
    sizes = [{"size": str(Size(info.bytes)), "memory": str(Size(info.memory))} for info in found]
    rows = [row | size | {"created": row["created"][:19]} for row, size in zip(documents, sizes, strict=True)]
    print_rows(rows, _COLUMNS, form, documents)


@command.command("inspect")
@DOCUMENTS
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...], form: str) -> None:
    """Print what snapshots need and hold, as JSON.

    \b
    firkin snapshot inspect before-upgrade
    """
    snapshots = _snapshots()
    print_documents([snapshots.info(name).as_document() for name in names], form)


@command.command("rm")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Remove snapshots. Clones of them run on.

    \b
    firkin snapshot rm before-upgrade
    """
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
    """Write a snapshot as one file, for another host like this one.

    \b
    firkin snapshot export before-upgrade
    firkin snapshot export -o - before-upgrade | gzip > before-upgrade.gz
    """
    from firkin.core.portable import export_snapshot
    from firkin.types.state import StateDirs

    if output == "-":
        export_snapshot(name, sys.stdout.buffer, StateDirs.default())
        return
    path = Path(output or f"{name}.firkin").absolute()
    export_snapshot(name, path, StateDirs.default())
    click.echo(path)


@command.command("import")
@click.argument("file")
@click.argument("name")
def import_(file: str, name: str) -> None:
    """Read FILE (- for standard input) and keep the snapshot in it as NAME, once all of it is verified.

    \b
    firkin snapshot import before-upgrade.firkin before-upgrade
    """
    from firkin.core.portable import import_snapshot
    from firkin.types.state import StateDirs

    with sys.stdin.buffer if file == "-" else Path(file).open("rb") as source:
        import_snapshot(source, name, StateDirs.default())
    click.echo(name)
