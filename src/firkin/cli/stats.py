"""`firkin stats`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from firkin.cli._loop import drive
from firkin.cli.output import FORMAT, print_rows, render

if TYPE_CHECKING:
    from firkin.core.live import LiveContainer
    from firkin.core.stats import Stats

__all__ = ["command"]

_COLUMNS = {
    "id": "NAME",
    "cpu": "CPU",
    "memory": "MEMORY",
    "network": "NET IN / OUT",
    "block": "BLOCK IN / OUT",
    "tasks": "TASKS",
    "oom": "OOM KILLS",
    "host_memory": "HOST MEMORY",
    "host_cpu": "HOST CPU",
}


@click.command("stats")
@FORMAT
@click.option("--no-stream", is_flag=True, help="Print once, in place of again and again.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, metavar="SECONDS", help="Time between two rounds."
)
@click.argument("containers", nargs=-1)
def command(containers: tuple[str, ...], form: str, no_stream: bool, interval: float) -> None:
    """Print what live containers use (default: all that run) and what their VMs cost the host.

    Percentages are of one processor, since the round before. JSON holds counters: one array with --no-stream, else an
    object a line.

    \b
    firkin stats
    firkin stats --no-stream --format '{{.id}} {{json .memory}}' box
    """
    drive(_stats(containers, form, no_stream, interval))


async def _stats(names: tuple[str, ...], form: str, once: bool, interval: float) -> None:
    import asyncio

    from firkin.core.live import find_live, list_live
    from firkin.types.state import StateDirs

    dirs = StateDirs.default()
    found = [find_live(dirs, name) for name in names] if names else list_live(dirs)
    wanted = {live.id for live in found} if names else None
    before = await _round(found, strict=bool(names))
    if form != "table" and once:
        print_rows([stats.as_document() for stats in before.values()], _COLUMNS, form)
        return
    while found or wanted is None:
        if form != "table":
            _print_lines(before, form)
        await asyncio.sleep(interval)
        found = [live for live in list_live(dirs) if wanted is None or live.id in wanted]
        now = await _round(found, strict=False)
        if form == "table":
            if not once and sys.stdout.isatty():
                click.clear()
            print_rows([_row(before[id], stats) for id, stats in now.items() if id in before], _COLUMNS, form)
        # A pipe's reader sees each round as it comes.
        sys.stdout.flush()
        if once:
            return
        before = now


async def _round(found: list[LiveContainer], *, strict: bool) -> dict[str, Stats]:
    """The stats of each by its name; where not `strict`, without those that are paused or end just now."""
    import asyncio

    from firkin.errors import StateError

    answers = await asyncio.gather(*map(_one, found), return_exceptions=True)
    read: dict[str, Stats] = {}
    for live, answer in zip(found, answers, strict=True):
        if isinstance(answer, BaseException):
            if strict or not isinstance(answer, StateError):
                raise answer
        else:
            read[live.id] = answer
    return read


async def _one(live: LiveContainer) -> Stats:
    from firkin.core.remote import RemoteContainer

    async with await RemoteContainer.connect(live) as container:
        return await container.stats()


def _print_lines(round: dict[str, Stats], form: str) -> None:
    template = "{{json .}}" if form == "json" else form
    for stats in round.values():
        click.echo(render(template, stats.as_document()))


def _row(before: Stats, now: Stats) -> dict[str, Any]:
    from firkin.types.size import Size

    usec = (now.read_at - before.read_at).total_seconds() * 1e6
    limit = now.vm.memory_total if now.memory.limit is None else min(now.memory.limit, now.vm.memory_total)
    received, sent = (sum(getattr(one, name) for one in now.network) for name in ("received_bytes", "sent_bytes"))
    return {
        "id": now.id,
        "cpu": _percent(now.cpu.usage_usec - before.cpu.usage_usec, usec),
        "memory": f"{Size(now.memory.working_set)} / {Size(limit)}",
        "network": f"{Size(received)} / {Size(sent)}",
        "block": f"{Size(now.block.read_bytes)} / {Size(now.block.written_bytes)}",
        "tasks": now.tasks,
        "oom": now.memory.events.oom_kill,
        "host_memory": "?" if now.host.pss is None else Size(now.host.pss),
        "host_cpu": _percent(now.host.cpu_usec - before.host.cpu_usec, usec),
    }


def _percent(used: int, passed: float) -> str:
    return f"{100 * max(used, 0) / passed:.1f}%" if passed > 0 else "0.0%"
