"""Refusals are JSON lines, so many a second, in a file that does not grow without end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firkin.network.report import Refusals


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_burst_is_told_whole_and_a_flood_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "refused.jsonl"
    refusals = Refusals(path)
    for port in range(1000):
        refusals.add(1000.0, "private", "tcp", destination="10.0.0.1", port=port)
    refusals.add(1001.0, "private", "udp", destination="10.0.0.1", port=1)
    refusals.close()
    told = lines(path)
    assert refusals.total == 1001
    assert len(told) == 101
    assert (told[0]["reason"], told[0]["protocol"], told[0]["port"]) == ("private", "tcp", 0)
    assert told[-1]["suppressed"] == 900
    assert "suppressed" not in told[0]


def test_the_file_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "refused.jsonl"
    refusals = Refusals(path, largest=1000)
    for number in range(30):
        refusals.add(float(number), "private", "tcp", port=number)
    refusals.close()
    kept = [*lines(path.with_suffix(".old")), *lines(path)]
    assert path.stat().st_size <= 1000
    assert [line["port"] for line in kept] == list(range(30 - len(kept), 30))


def test_without_a_file_the_logger_has_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="firkin.network.refused"):
        Refusals(None).add(1.0, "fragment", "ip")
    assert json.loads(caplog.messages[0])["reason"] == "fragment"
