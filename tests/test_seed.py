"""docs/seed.md names a test here for every test of the seed: they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_ROWS = [
    line.split("|")[1:4] for line in (ROOT / "docs" / "seed.md").read_text().splitlines() if line.startswith("| `")
]


def test_the_table_has_each_once() -> None:
    names = [there.strip() for there, _, _ in _ROWS]
    assert len(names) == len(set(names)) == 20


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row[0].strip(" `"))
def test_the_counterpart_exists(row: list[str]) -> None:
    counterparts = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[1])
    assert counterparts
    for file, name in counterparts:
        tree = ast.parse((ROOT / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
