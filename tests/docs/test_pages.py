"""Every command of README and docs is run in real VMs, and prints what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, Step, agrees, left_out, steps, write_script

RUN = [page.relative_to(ROOT) for page in PAGES if next(steps(page.read_text()), None) is not None]
# Seconds for all of a page.
LIMIT = 200


def _run(page: Path, found: list[Step], home: Path, folder: Path) -> list[str]:
    """Run the steps of `page`; what went wrong, a line each."""
    results, work = folder / "results", folder / "work"
    results.mkdir()
    work.mkdir()
    script = write_script(found, results)
    # What README and CONTRIBUTING say is said in a clone; they write no files.
    where = ROOT if page.parent == Path() else work
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "FIRKIN_HOME": str(home), "PATH": tools, "NO_COLOR": "1", "COLUMNS": "80"}
    if where != ROOT:
        # The plugin warns where it is not configured, and pages are not about it.
        environment["PYTEST_ADDOPTS"] = "-p no:asyncio"
    environment["EXAMPLES"] = str(ROOT / "examples")
    environment.pop("PYTEST_XDIST_WORKER", None)
    subprocess.run(["bash", str(script)], cwd=where, env=environment, timeout=LIMIT, check=False)
    wrong = []
    for number, step in enumerate(found):
        output = results / f"{number}.out"
        printed = output.read_text(errors="replace") if output.exists() else ""
        code = results / f"{number}.code"
        where = f"{page}:{step.line}: {step.shell.strip().splitlines()[0]}"
        if not code.exists() or (step.strict and code.read_text().strip() != "0"):
            wrong.append(f"{where}\n  failed, and printed:\n{printed}")
            break
        if step.prints is not None and not agrees(step.prints, printed):
            wrong.append(f"{where}\n  should print:\n{step.prints}  printed:\n{printed}")
    return wrong


@pytest.mark.vm
@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("page", RUN, ids=str)
def test_page(page: Path, docs_home: Path, tmp_path: Path) -> None:
    wrong = _run(page, list(steps((ROOT / page).read_text())), docs_home, tmp_path)
    assert not wrong, "\n".join(wrong)
    assert not list((docs_home / "run").glob("vm/*/owner"))


def test_few_blocks_are_not_run() -> None:
    """Those that say so, since they need the internet or are what runs this test; the summary names each."""
    assert len(left_out()) <= 6


def test_every_example_is_run_by_a_page() -> None:
    commands = "\n".join(step.shell for page in RUN for step in steps((ROOT / page).read_text()))
    examples = [path.name for path in (ROOT / "examples").glob("*.py")]
    assert [name for name in examples if f"$EXAMPLES/{name}" not in commands] == []


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a  \nb\n\n", True),
        ("a ... c\n", "a b c\n", True),
        ("first\n...\nlast\n", "first\n1\n2\nlast\n", True),
        ("a\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_agrees(shown: str, printed: str, same: bool) -> None:
    assert agrees(shown, printed) is same


def test_steps_of_a_page() -> None:
    page = "\n".join(
        [
            "```python file=a/b.py",
            "print('b')",
            "```",
            "```console",
            "$ python a/b.py |",
            ">   cat",
            "b",
            "$ true",
            "```",
            "",
            "```python",
            "print('c')",
            "```",
            "",
            "```text",
            "c",
            "```",
            "```sh",
            "# not run: it needs the internet",
            "false",
            "```",
        ]
    )
    found = list(steps(page))
    assert [(step.line, step.prints, step.strict) for step in found] == [
        (1, None, False),
        (5, "b\n", True),
        (8, None, True),
        (11, "c\n", True),
    ]
    assert found[1].shell == "python a/b.py |\n  cat\n"
