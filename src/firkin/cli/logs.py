"""`firkin logs`."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from firkin.core.log_file import LogReader, Record
    from firkin.types.state import StateDirs

__all__ = ["command"]

# Seconds between two looks of --follow.
_PAUSE = 0.1
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@click.option("-n", "--tail", type=click.IntRange(min=0), default=None, metavar="LINES", help="Only the last lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time of its writing before each line.")
@click.argument("container")
def command(container: str, follow: bool, tail: int | None, timestamps: bool) -> None:
    """Print what a detached container wrote: its last 8 MiB or more, each to the stream that it was written to.

    \b
    firkin logs box
    firkin logs -f --tail 20 box
    """
    from firkin.core.live import find_live
    from firkin.core.log_file import LogReader
    from firkin.errors import StateError
    from firkin.types.state import StateDirs

    dirs = StateDirs.default()
    live = find_live(dirs, container)
    try:
        reader = LogReader(live.folder)
    except FileNotFoundError:
        raise StateError(
            f"no output of {live.id} was kept: it went to who runs it", hint="`firkin run --detach` keeps it"
        ) from None
    writer = _Writer(timestamps)
    records: Iterable[Record] = reader.read()
    writer.write(records if tail is None else _last_lines(records, tail))
    if follow:
        _follow(dirs, live.id, reader, writer)
    reader.close()


def _follow(dirs: StateDirs, name: str, reader: LogReader, writer: _Writer) -> None:
    from firkin.core.live import list_live

    alive = True
    while alive:
        time.sleep(_PAUSE)
        # Whether it lives is asked first, so that what it wrote last is read after that.
        alive = any(live.id == name for live in list_live(dirs))
        writer.write(reader.read())


def _last_lines(records: Iterable[Record], count: int) -> list[Record]:
    """The last `count` lines, whichever stream each is of."""
    kept: deque[Record] = deque(maxlen=count)
    for record in records:
        for line in _LINE.findall(record.data):
            if kept and kept[-1].stream == record.stream and not kept[-1].data.endswith(b"\n"):
                kept[-1] = kept[-1]._replace(data=kept[-1].data + line)
            else:
                kept.append(record._replace(data=line))
    return list(kept)


class _Writer:
    def __init__(self, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._begins_line = {1: True, 2: True}

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            out = sys.stderr.buffer if record.stream == 2 else sys.stdout.buffer
            out.write(self._stamped(record) if self._timestamps else record.data)
            out.flush()

    def _stamped(self, record: Record) -> bytes:
        seconds, rest = divmod(record.time_ns, 1_000_000_000)
        stamp = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z ".encode()
        stream = 2 if record.stream == 2 else 1
        out = b""
        for line in _LINE.findall(record.data):
            out += (stamp if self._begins_line[stream] else b"") + line
            self._begins_line[stream] = line.endswith(b"\n")
        return out
