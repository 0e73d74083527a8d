"""Results, the turns taken with a peer, the table and the JSON file of the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.__main__ import select
from bench.harness import Benchmark, Result, interleaved, percentile, run, table, write


def test_a_result_holds_median_nearest_rank_p95_and_ratio() -> None:
    result = Result.of("fork_ms", [float(value) for value in range(1, 101)], peer=[101.0], target=1.0)
    assert (result.n, result.median, result.p95, result.peer, result.ratio) == (100, 50.5, 95.0, 101.0, 0.5)


def test_one_sample_is_a_result() -> None:
    result = Result.of("once", [3.0], unit="s")
    assert (result.median, result.p95, result.spread, result.met) == (3.0, 3.0, 0.0, None)


@pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 2.0), (75, 3.0), (76, 4.0), (100, 4.0)])
def test_percentile_is_of_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], percent) == expected


def test_a_figure_with_a_peer_is_judged_by_its_ratio() -> None:
    assert Result.of("x", [30.0], peer=[10.0], target=2.0).met is False
    assert Result.of("x", [15.0], peer=[10.0], target=2.0).met is True


def test_higher_can_be_better() -> None:
    assert Result.of("forks", [20.0], unit="1/s", target=10.0, higher_is_better=True).met is True
    assert Result.of("forks", [5.0], unit="1/s", target=10.0, higher_is_better=True).met is False


def test_turns_change_and_warm_rounds_do_not_count() -> None:
    order: list[str] = []

    def measure(name: str, values: Iterator[int]) -> float:
        order.append(name)
        return float(next(values))

    ours, peers = iter(range(10)), iter(range(100, 110))
    samples = interleaved(lambda: measure("ours", ours), lambda: measure("peer", peers), 2)
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert samples == ([1.0, 2.0], [101.0, 102.0])


def test_the_file_has_the_agreed_form(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    boot = Benchmark("cold_boot", 3, lambda rounds: Result.of("boot_ms", [1.0, 2.0, 3.0], target=5.0))
    write(path, {"cpu": "x"}, run(boot))
    figures = {"n": 3, "median": 2.0, "p95": 3.0, "peer": None, "ratio": None}
    assert json.loads(path.read_text()) == {
        "machine": {"cpu": "x"},
        "results": [{"name": "boot_ms", "unit": "ms", **figures, "bench": "cold_boot"}],
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["latest.json"]


def test_the_table_shows_who_met_the_target() -> None:
    lines = table(
        [Result.of("a", [1.0], target=2.0), Result.of("b", [3.0], target=2.0), Result.of("c", [1.0])]
    ).splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["met", "MISSED"]
    assert lines[3].split() == ["c", "ms", "1", "1", "1", "0%"]


async def one_later(rounds: int) -> Result:
    return Result.of("later", [float(rounds)])


def two(rounds: int) -> list[Result]:
    return [Result.of("first", [1.0]), Result.of("second", [float(rounds)])]


def test_run_takes_functions_and_coroutine_functions_one_result_and_several() -> None:
    assert [result.median for result in run(Benchmark("one_later", 7, one_later))] == [7.0]
    assert [result.name for result in run(Benchmark("two", 7, two), rounds=3)] == ["first", "second"]


def test_a_benchmark_is_chosen_by_the_beginning_of_its_name() -> None:
    known = {"one_later": Benchmark("one_later", 1, one_later), "two": Benchmark("two", 1, two)}
    assert [each.name for each in select(known, ["tw"])] == ["two"]
    assert select(known, []) == list(known.values())


def test_a_name_that_means_nothing_is_refused() -> None:
    with pytest.raises(SystemExit, match="no benchmark is called nothing"):
        select({}, ["nothing"])
