"""`firkin bench`."""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = ["command"]


@click.command("bench")
@click.option("--rounds", type=click.IntRange(1, 1000), default=10, help="Samples of each figure (default: 10).")
@click.option("--no-cold", is_flag=True, help="Leave boots out, which take seconds without KVM.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
@click.option("--html", metavar="FILE", help="Write a page with plots too; it needs nothing from anywhere.")
@click.argument("image", default="busybox")
def command(image: str, rounds: int, no_cold: bool, form: str, html: str | None) -> int:
    """Measure what starts and clones of IMAGE (default: busybox) cost on this machine.

    \b
    firkin bench
    firkin bench --rounds 30 --html bench.html debian
    """
    from firkin.cli._loop import drive
    from firkin.core.benchmark import Figure, measure

    def told(figure: Figure) -> None:
        if form == "table":
            spread = f"p95 {figure.p95:.1f}" if len(figure.samples) > 1 else ""
            click.echo(f"{figure.name:<10}{figure.median:>10.1f} {figure.unit:<4} {spread:<14} {figure.what}")

    report = drive(measure(image, rounds, cold=not no_cold, told=told))
    if html is not None:
        from firkin.cli._bench_page import page

        Path(html).write_text(page(report))
    if form == "json":
        click.echo(json.dumps(report.as_document()))
    else:
        click.echo(f"left over: {', '.join(report.leftovers) or 'nothing'}")
    return 1 if report.leftovers else 0
