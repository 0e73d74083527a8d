"""`firkin cp`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from firkin.cli._live import connected
from firkin.cli._loop import drive
from firkin.errors import InvalidInputError

if TYPE_CHECKING:
    from firkin.core.copy.options import CopyProgress
    from firkin.core.copy.peer import CopyPeer
    from firkin.core.copy.report import CopyReport

__all__ = ["command"]

_CHANGED = 1


@click.command("cp")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what SOURCE leads to, where it is a symbolic link.")
@click.option("-a", "--archive", is_flag=True, help="Keep uid and gid (out of a container: as root only).")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--limit", metavar="SIZE", help="The most that may come out of the container (default: 64g).")
@click.argument("source")
@click.argument("destination")
def command(source: str, destination: str, follow_link: bool, archive: bool, quiet: bool, limit: str | None) -> int:
    """Copy between this host and a live container: CONTAINER:PATH on one side, a path or - on the other.

    An existing folder takes the source in; FOLDER/. means what is in it. - is a tar on standard input or output. Exit
    code 1: copied, but something changed while it was read, and standard error says what.

    \b
    firkin cp notes.txt box:/root/
    firkin cp box:/var/log ./log
    firkin cp box:/etc - | tar -t
    """
    inside, outside = _side(source), _side(destination)
    if (inside is None) == (outside is None):
        raise InvalidInputError(
            "one of SOURCE and DESTINATION must be in a container",
            hint="write it as CONTAINER:PATH, a local one as ./a:b",
        )
    name = (inside or outside or ("", ""))[0]
    return drive(_copy(name, source, destination, follow_link, archive, quiet, limit))


def _side(text: str) -> tuple[str, str] | None:
    """Container and path, or `None` for a path of this host: one with a / before the colon, or without a colon."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and name and "/" not in name and not name.startswith(".") else None


async def _copy(
    name: str, source: str, destination: str, follow: bool, archive: bool, quiet: bool, limit: str | None
) -> int:
    async with connected(name) as container:
        peer = container.copy_peer()
        if "-" in (source, destination):
            await _stream(peer, source, destination, follow, archive)
            return 0
        with _progress(quiet) as progress:
            report = await _files(peer, source, destination, follow, archive, limit, progress)
    for note in report.notes:
        click.echo(f"firkin: {note}", err=True)
    return _CHANGED if report.notes else 0


async def _files(
    peer: CopyPeer,
    source: str,
    destination: str,
    follow: bool,
    archive: bool,
    limit: str | None,
    progress: CopyProgress | None,
) -> CopyReport:
    from firkin.core.copy.report import COPY_LIMIT
    from firkin.core.copy.transfer import get, put

    if inside := _side(source):
        return await get(
            peer,
            inside[1],
            destination,
            follow=follow,
            preserve_owner=archive,
            limit=limit or COPY_LIMIT,
            progress=progress,
        )
    into = (_side(destination) or ("", ""))[1]
    return await put(peer, source, into, follow=follow, preserve_owner=archive, progress=progress)


async def _stream(peer: CopyPeer, source: str, destination: str, follow: bool, archive: bool) -> None:
    from firkin.core.copy.transfer import get_archive, put_archive

    if inside := _side(source):
        if os.isatty(sys.stdout.fileno()):
            raise InvalidInputError("a tar is not for a terminal", hint="write `firkin cp … - | tar -t`, or a path")
        await get_archive(peer, inside[1], sys.stdout.fileno(), follow=follow)
        return
    await put_archive(peer, sys.stdin.fileno(), (_side(destination) or ("", ""))[1], preserve_owner=archive)


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[CopyProgress | None]:
    """The bytes that passed, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    columns = (TextColumn("copying"), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda total: shown.update(task, completed=total)
