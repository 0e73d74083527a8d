"""Write the table of docs/performance.md from `bench/results/latest.json`, or from the files named as arguments.

A benchmark that was not run, or failed, has no row. Of several files, each the result of a run of some benchmarks, a
figure's row is that of the last file that has it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
LATEST = ROOT / "bench" / "results" / "latest.json"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def table(documents: Sequence[dict[str, Any]]) -> str:
    """The machine in a line, and a row for each figure with the command that prints it."""
    machine = ", ".join(f"{key}: {value}" for key, value in documents[-1]["machine"].items())
    rows = {row["name"]: row for document in documents for row in document["results"]}
    lines = [f"Measured on {machine}.", ""]
    lines += [
        "| figure | median | p95 | n | peer | ratio | printed by |",
        "| --- | --: | --: | --: | --: | --: | --- |",
    ]
    for row in rows.values():
        unit = "" if row["unit"] in ("ratio", "count") else f" {row['unit']}"
        cells = [f"{_number(row['median'])}{unit}", f"{_number(row['p95'])}{unit}", str(row["n"])]
        cells += ["" if row.get(key) is None else _number(row[key]) for key in ("peer", "ratio")]
        lines.append(f"| `{row['name']}` | {' | '.join(cells)} | `python -m bench {row['bench']}` |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def put(page: str, text: str) -> str:
    """`page` with `text` between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"figures: the page has lost its marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Rewrite the page."""
    sources = [Path(name) for name in arguments] or [LATEST]
    if missing := [str(path) for path in sources if not path.is_file()]:
        sys.exit(f"figures: {', '.join(missing)} is not there (make bench writes {LATEST.relative_to(ROOT)})")
    PAGE.write_text(put(PAGE.read_text(), table([json.loads(path.read_text()) for path in sources])))


if __name__ == "__main__":
    main(sys.argv[1:])
