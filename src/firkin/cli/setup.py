"""`firkin setup`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("setup")
@click.option("--kernel", metavar="FILE", help="Take this kernel (a bzImage, or Debian's linux-image-….deb).")
@click.option("--fetch", is_flag=True, help="Fetch Debian's newest although a kernel is here.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what is missing.")
def command(kernel: str | None, fetch: bool, quiet: bool) -> int:
    """Get what guests boot, for this user alone, and say what else is missing. Needs no root, and installs nothing.

    \b
    firkin setup
    firkin setup --kernel linux-image-6.1.0-41-cloud-amd64_6.1.158-1_amd64.deb
    """
    from pathlib import Path

    from firkin.cli.doctor import examined
    from firkin.core.setup import get_kernel, make_ready
    from firkin.types.state import StateDirs

    def say(text: str) -> None:
        if not quiet:
            click.echo(f"setup: {text}", err=True)

    dirs = StateDirs.default()
    image = get_kernel(dirs, say, file=None if kernel is None else Path(kernel), fetch=fetch)
    say(f"guests boot {image.path}")
    findings = [finding for finding in examined() if finding.verdict != "ok"]
    for finding in findings:
        fix = f" ({finding.fix})" if finding.fix else ""
        click.echo(f"setup: {finding.verdict}: {finding.name}: {finding.detail}{fix}", err=True)
    if any(finding.verdict == "broken" for finding in findings):
        return 1
    make_ready(dirs, image)
    say("ready: firkin run --rm busybox echo hello")
    return 0
