"""`firkin doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from firkin.cli.output import FORMAT, print_rows

__all__ = ["command"]


@click.command("doctor")
@FORMAT
def command(form: str) -> int:
    """Say what this host can do, what is missing, and how to get it. Exit code 1 where nothing would run.

    \b
    firkin doctor
    firkin doctor --format json
    firkin doctor --format '{{.name}}: {{.fix}}'
    """
    from firkin.core.doctor import examine
    from firkin.types.state import StateDirs

    findings = examine(StateDirs.default())
    rows = [asdict(finding) for finding in findings]
    print_rows(rows, {"name": "WHAT", "verdict": "VERDICT", "detail": "DETAIL", "fix": "FIX"}, form)
    return 1 if any(finding.verdict == "broken" for finding in findings) else 0
