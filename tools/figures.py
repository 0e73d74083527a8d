"""Write the table of docs/performance.md from `bench/results/latest.json`, or from the file named as argument."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
LATEST = ROOT / "bench" / "results" / "latest.json"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def table(document: dict[str, Any]) -> str:
    """The machine in a line, and a row for each figure with the command that prints it."""
    machine = ", ".join(f"{key}: {value}" for key, value in document["machine"].items())
    lines = [f"Measured on {machine}.", ""]
    lines += [
        "| figure | median | p95 | n | peer | ratio | printed by |",
        "| --- | --: | --: | --: | --: | --: | --- |",
    ]
    for row in document["results"]:
        unit = "" if row["unit"] in ("ratio", "count") else f" {row['unit']}"
        cells = [f"{row['median']:.4g}{unit}", f"{row['p95']:.4g}{unit}", str(row["n"])]
        cells += ["" if row[key] is None else f"{row[key]:.4g}" for key in ("peer", "ratio")]
        lines.append(f"| `{row['name']}` | {' | '.join(cells)} | `python -m bench {row['bench']}` |")
    return "\n".join(lines)


def put(page: str, text: str) -> str:
    """`page` with `text` between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Rewrite the page."""
    source = Path(arguments[0]) if arguments else LATEST
    PAGE.write_text(put(PAGE.read_text(), table(json.loads(source.read_text()))))


if __name__ == "__main__":
    main(sys.argv[1:])
