"""Branch coverage of core, ext4 and vminitd by unit and VM tests together; `make coverage` runs it.

Without arguments it runs the tests that these packages have a part in (a quarter of an hour on two cores), prints the
figures, and ends with 1 where a package has too little. With arguments (pytest's) it runs those tests only. `--report`
prints the figures of what was measured before. The lines and branches that no test took are in
`.build/coverage/html/index.html`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".build" / "coverage"
PACKAGES = ("core", "ext4", "vminitd")
# Not those of the registry, the guest's programs and the machine, which take long and reach nothing else of it.
TESTS = ("core", "ext4", "vminitd", "cli", "limits", "snapshots", "agent", "scenarios", "emulation", "network")
TESTS += ("docs/test_docstrings.py",)
LIMIT = 90.0
WORST = 8


def coverage(file: str, *arguments: str) -> int:
    """Run coverage.py with the settings of pyproject.toml, for the data in `file`."""
    environment = {**os.environ, "COVERAGE_FILE": str(FOLDER / file)}
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=ROOT, env=environment).returncode


def measure(arguments: list[str]) -> int:
    """Run the tests; pytest's exit status."""
    everything = ["-n", "2", "--dist", "worksteal", "-m", "not soak", "-q", *(f"tests/{name}" for name in TESTS)]
    # A traced program is slower, and limits of single tests are set for one that is not.
    return coverage("data", "run", "-m", "pytest", "--timeout", "900", *(arguments or everything))


def covered(files: dict[str, Any], package: str) -> tuple[float, float, list[tuple[float, str]]]:
    """Percent of lines and of branches of `package`, and its files by their branches, the worst first."""
    inside = {name: file["summary"] for name, file in files.items() if f"firkin/{package}/" in name}

    def percent(done: str, all: str) -> float:
        return 100 * sum(s[done] for s in inside.values()) / max(1, sum(s[all] for s in inside.values()))

    each = sorted(
        (100 * s["covered_branches"] / s["num_branches"], name) for name, s in inside.items() if s["num_branches"]
    )
    return percent("covered_lines", "num_statements"), percent("covered_branches", "num_branches"), each


def report() -> int:
    """Combine what all processes left and print it; 1 where a package has too little."""
    # A file of its own: what makes reports of the data takes the processes' files away once it has joined them.
    coverage("all", "combine", "--quiet", "--keep", *map(str, FOLDER.glob("data.*")))
    coverage("all", "html", "--quiet", "--directory", str(FOLDER / "html"))
    coverage("all", "json", "--quiet", "-o", str(FOLDER / "report.json"))
    files = json.loads((FOLDER / "report.json").read_text())["files"]
    low = False
    for package in PACKAGES:
        lines, branches, each = covered(files, package)
        low = low or branches < LIMIT
        print(f"firkin.{package:<8} lines {lines:5.1f}%  branches {branches:5.1f}%  (at least {LIMIT:g}%)")
        for share, name in each[:WORST]:
            print(f"    {share:5.1f}%  {name}")
    return int(low)


def main(arguments: list[str]) -> int:
    """Measure, unless only the report is asked for."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Some tests start Firkin as another user.
    FOLDER.chmod(0o1777)
    failed = 0
    if arguments != ["--report"]:
        for old in FOLDER.glob("data*"):
            old.unlink()
        failed = measure(arguments)
    return report() or failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
