"""The shared vectors are what their generator writes."""

from __future__ import annotations

import runpy
from pathlib import Path

VECTORS = Path(__file__).parent.parent / "vectors"


def test_vectors_are_generated() -> None:
    generator = runpy.run_path(str(VECTORS / "generate.py"))
    assert generator["text"]() == (VECTORS / "framing.json").read_text(), "run tests/vectors/generate.py"
