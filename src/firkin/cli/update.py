"""`firkin update`."""

from __future__ import annotations

import click

from firkin.cli._live import each
from firkin.cli._loop import drive

__all__ = ["command"]


@click.command("update")
@click.option("--cpus", type=float, metavar="NUMBER", help="Processors, fractions allowed; no more than the VM has.")
@click.option("-m", "--memory", metavar="SIZE", help="Memory above which the kernel kills.")
@click.option("--memory-high", metavar="SIZE", help="Memory above which the kernel slows down and takes cache back.")
@click.option("--pids-limit", type=int, metavar="NUMBER", help="The most processes and threads.")
@click.option("--read-bps", metavar="SIZE", help="Bytes a second that the root filesystem's disk gives.")
@click.option("--write-bps", metavar="SIZE", help="Bytes a second that it takes.")
@click.option("--read-iops", type=int, metavar="NUMBER", help="Reads a second from it.")
@click.option("--write-iops", type=int, metavar="NUMBER", help="Writes a second to it.")
@click.argument("containers", nargs=-1, required=True)
def command(
    containers: tuple[str, ...],
    cpus: float | None,
    memory: str | None,
    memory_high: str | None,
    pids_limit: int | None,
    read_bps: str | None,
    write_bps: str | None,
    read_iops: int | None,
    write_iops: int | None,
) -> None:
    """Change the limits of live containers, inside their VMs. -1 lifts a limit.

    \b
    firkin update --memory 256m box
    """
    from firkin.core.limits import Limits

    limits = Limits.of(
        pids_limit=pids_limit,
        cpus=cpus,
        memory=memory,
        memory_high=memory_high,
        read_bps=read_bps,
        write_bps=write_bps,
        read_iops=read_iops,
        write_iops=write_iops,
    )
    drive(each(containers, lambda container: container.update(limits)))
