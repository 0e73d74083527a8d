"""The reference is whole: each error has its row, each command its help, each figure its command."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import figures
import pytest

import firkin
import firkin.errors
from bench.harness import Result
from firkin.cli.main import cli
from tests.docs.blocks import ROOT


def test_every_error_has_its_row() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    named = {row.replace("–", "").strip().split("`")[1] for row in rows if "`" in row}
    assert named == set(firkin.errors.__all__)


def test_the_rows_stand_as_the_tree_does() -> None:
    """As many dashes as a class has ancestors up to `FirkinError`."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    for line in page.splitlines():
        if line.startswith("| ") and "`" in (cell := line.split("|")[1]):
            kind = getattr(firkin.errors, cell.split("`")[1])
            above = [each for each in inspect.getmro(kind)[1:] if issubclass(each, firkin.errors.FirkinError)]
            assert cell.count("–") == len(above), kind


def _document(**figures: float) -> dict[str, object]:
    """What a run of one benchmark writes."""
    rows = [replace(Result.of(name, [value], unit="ms"), bench="some") for name, value in figures.items()]
    return {"machine": {"cores": 2}, "results": [row.document() for row in rows]}


def test_figures_are_those_that_were_measured() -> None:
    """A figure without a peer has empty cells; one that was measured again stands with its new value."""
    text = figures.table([_document(a_ms=1.5, b_ms=12345.6), _document(a_ms=2.5)])
    assert text.splitlines()[0] == "Measured on cores: 2."
    assert text.splitlines()[4:] == [
        "| `a_ms` | 2.5 ms | 2.5 ms | 1 |  |  | `python -m bench some` |",
        "| `b_ms` | 12346 ms | 12346 ms | 1 |  |  | `python -m bench some` |",
    ]


def test_figures_stand_between_their_marks() -> None:
    page = f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n"
    assert figures.put(page, "new") == f"before\n{figures.BEGIN}\nnew\n{figures.END}\nafter\n"
    with pytest.raises(SystemExit, match="marks"):
        figures.put("no marks", "new")


def test_every_figure_of_the_page_is_printed_by_a_benchmark_that_there_is() -> None:
    page = figures.PAGE.read_text()
    table = page.partition(figures.BEGIN)[2].partition(figures.END)[0]
    commands = {line.split("python -m bench ")[1].split("`")[0] for line in table.splitlines() if "-m bench" in line}
    listed = subprocess.run(
        [sys.executable, "-m", "bench", "--list"], cwd=ROOT, text=True, capture_output=True, check=True
    ).stdout
    assert commands <= {line.split(" ")[0] for line in listed.splitlines()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, made as `make docs` does: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(folder)]
    made = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    return folder


def test_the_site_fetches_nothing(site: Path) -> None:
    """No script, style or picture from elsewhere; a link that a reader follows is another matter."""
    fetched = [
        f"{page.relative_to(site)}: {line.strip()}"
        for page in site.rglob("*.html")
        for line in page.read_text().splitlines()
        if any(f'{attribute}="http' in line for attribute in ("src", "srcset")) or '<link href="http' in line
    ]
    assert fetched == []


def test_the_site_shows_every_command_and_call(site: Path) -> None:
    commands = (site / "reference" / "cli.html").read_text()
    names = cli.list_commands(click.Context(cli))
    assert [name for name in names if f"firkin {name}" not in commands] == []
    calls = (site / "reference" / "api.html").read_text()
    assert [name for name in firkin.__all__ if name != "__version__" and f".{name}" not in calls] == []
    # The sync face's docstrings say no more than whose they are; the page has the whole.
    assert not re.search(r"As <code[^>]*><span[^>]*>Async", calls)
