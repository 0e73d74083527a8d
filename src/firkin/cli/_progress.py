"""Showing a transfer: bars on a terminal, else plain lines or JSON lines, on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from firkin.oci.manifest import Descriptor
    from firkin.oci.registry.progress import Outcome, Progress

__all__ = ["ProgressStyle", "showing"]

ProgressStyle = Literal["auto", "plain", "json", "none"]
_WORDS = {"done": "done", "exists": "already there", "mounted": "mounted", "waited": "done by another process"}


@contextlib.contextmanager
def showing(style: ProgressStyle) -> Iterator[Progress]:
    """A `Progress` in the style asked for; `auto` is bars where standard error is a terminal, else plain lines."""
    from firkin.oci.registry.progress import NoProgress

    if style == "none":
        yield NoProgress()
    elif style == "json":
        yield _JsonLines()
    elif style == "auto" and sys.stderr.isatty():
        with _bars() as bars:
            yield bars
    else:
        yield _PlainLines()


def _short(blob: Descriptor) -> str:
    return blob.digest.hex[:12]


class _PlainLines:
    def started(self, blob: Descriptor, offset: int) -> None:
        where = f" from byte {offset}" if offset else ""
        click.echo(f"{_short(blob)}: {blob.size} bytes{where}", err=True)

    def advanced(self, blob: Descriptor, offset: int) -> None:
        """Lines are for beginnings and ends only."""

    def finished(self, blob: Descriptor, outcome: Outcome) -> None:
        click.echo(f"{_short(blob)}: {_WORDS[outcome]}", err=True)


class _JsonLines:
    """One object a line: event, digest, size, and offset or outcome. At most ten advances a second for each blob."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def started(self, blob: Descriptor, offset: int) -> None:
        self._print("started", blob, offset=offset)

    def advanced(self, blob: Descriptor, offset: int) -> None:
        now = time.monotonic()
        if offset >= blob.size or now - self._last.get(blob.digest, 0.0) >= 0.1:
            self._last[blob.digest] = now
            self._print("advanced", blob, offset=offset)

    def finished(self, blob: Descriptor, outcome: Outcome) -> None:
        self._print("finished", blob, outcome=outcome)

    def _print(self, event: str, blob: Descriptor, **more: Any) -> None:
        click.echo(json.dumps({"event": event, "digest": blob.digest, "size": blob.size, **more}), err=True)


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with RichProgress(*columns, console=Console(stderr=True)) as rich:

        class _Bars:
            def __init__(self) -> None:
                self._tasks: dict[str, Any] = {}

            def started(self, blob: Descriptor, offset: int) -> None:
                self.advanced(blob, offset)

            def advanced(self, blob: Descriptor, offset: int) -> None:
                if blob.digest not in self._tasks:
                    self._tasks[blob.digest] = rich.add_task(_short(blob), total=blob.size)
                rich.update(self._tasks[blob.digest], completed=offset)

            def finished(self, blob: Descriptor, outcome: Outcome) -> None:
                self.advanced(blob, blob.size)

        yield _Bars()
