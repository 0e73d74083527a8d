"""`firkin doctor`."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from firkin.cli.output import FORMAT, print_rows

if TYPE_CHECKING:
    from firkin.core.doctor import Finding

__all__ = ["command", "examined"]


@click.command("doctor")
@FORMAT
def command(form: str) -> int:
    """Say what this host can do, what is missing, and how to get it. Exit code 1 where nothing would run.

    \b
    firkin doctor
    firkin doctor --format json
    firkin doctor --format '{{.name}}: {{.fix}}'
    """
    findings = examined()
    rows = [asdict(finding) for finding in findings]
    print_rows(rows, {"name": "WHAT", "verdict": "VERDICT", "detail": "DETAIL", "fix": "FIX"}, form)
    return 1 if any(finding.verdict == "broken" for finding in findings) else 0


def examined() -> list[Finding]:
    """What `firkin.core.doctor` finds here. What it would warn of on the way is one of its findings."""
    from firkin.core.doctor import examine
    from firkin.types.state import StateDirs

    logging.getLogger("firkin.vmm.accel").setLevel(logging.ERROR)
    return examine(StateDirs.default())
