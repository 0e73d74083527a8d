"""`firkin bench`: every figure, nothing left, and a page that stands alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.cli._bench_page import page
from firkin.core.benchmark import Figure, Report
from firkin.oci import Image

REPORT = Report(
    "<image>",
    {"accelerator": "tcg & co"},
    (Figure("fork", "a <start>", "ms", (3.0, 1.0, 2.0)), Figure("memory", "of a clone", "MiB", (40.0,))),
    (),
)


def test_a_figure_sums_up_its_samples() -> None:
    figure = REPORT.figures[0]
    assert (figure.median, figure.p95) == (2.0, 3.0)
    document = json.loads(json.dumps(REPORT.as_document()))
    assert document["figures"][0]["samples"] == [3.0, 1.0, 2.0]


def test_the_page_stands_alone_and_escapes() -> None:
    text = page(REPORT)
    assert "<svg" in text
    assert "&lt;image&gt;" in text
    assert "a &lt;start&gt;" in text
    for foreign in ("<script", "http", "src=", "href=", "@import", "url("):
        assert foreign not in text


@pytest.mark.vm
@pytest.mark.timeout(300)
def test_every_figure_is_taken_and_nothing_is_left(busybox_image: Image, tmp_path: Path) -> None:
    html = tmp_path / "bench.html"
    firkin = [sys.executable, "-c", "from firkin.cli import main; main()"]
    command = [*firkin, "bench", "--rounds", "1", "--no-cold", "--format", "json", "--html", str(html)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    names = {figure["name"] for figure in report["figures"]}
    assert {"fork", "warm", "snapshot", "pool", "exec", "forks", "memory", "idle", "disk"} <= names
    assert all(figure["samples"] for figure in report["figures"])
    assert report["leftovers"] == []
    assert html.read_text().startswith("<!doctype html>")
