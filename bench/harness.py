"""What every benchmark shares: results with their spread, runs in turns with a peer's, the table and the JSON file.

A benchmark is a function of `bench/*.py` marked with `@benchmark`. It takes the number of rounds and gives one `Result`
or several; it may be a coroutine function. `python -m bench [NAMES]` runs them. Medians are judged, p95 is shown beside
them; where there is a peer both are measured in turns on the same machine, so that what slows one slows the other.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Benchmark", "Result", "benchmark", "benchmarks", "interleaved", "milliseconds", "run", "table", "write"]


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: `median` and `p95` of `n` samples in `unit`; `peer` the peer's median and `ratio` ours over it.

    `target` is what the median should not exceed (or, where `higher_is_better`, not fall below); a figure that has a
    peer is judged by its ratio. `spread` is the distance between the quartiles over the median, `bench` the benchmark
    that gave it (`run` says so).
    """

    name: str
    unit: str
    n: int
    median: float
    p95: float
    peer: float | None = None
    ratio: float | None = None
    target: float | None = None
    higher_is_better: bool = False
    spread: float = 0.0
    bench: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        samples: Sequence[float],
        *,
        unit: str = "ms",
        peer: Sequence[float] = (),
        target: float | None = None,
        higher_is_better: bool = False,
    ) -> Result:
        """The result of these samples, at least one, and of the peer's, if there is one."""
        median = statistics.median(samples)
        other = statistics.median(peer) if peer else None
        low, _, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else (median, median, median)
        return cls(
            name,
            unit,
            len(samples),
            median,
            percentile(samples, 95),
            other,
            median / other if other else None,
            target,
            higher_is_better,
            (high - low) / abs(median) if median else 0.0,
        )

    @property
    def judged(self) -> float:
        """What is compared with the target."""
        return self.median if self.ratio is None else self.ratio

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.judged >= self.target if self.higher_is_better else self.judged <= self.target

    def document(self) -> dict[str, str | int | float | None]:
        """What `bench/results/latest.json` holds of it."""
        figures = {"median": self.median, "p95": self.p95, "peer": self.peer, "ratio": self.ratio}
        rounded = {key: None if value is None else round(value, 4) for key, value in figures.items()}
        return {"name": self.name, "unit": self.unit, "n": self.n, **rounded, "bench": self.bench}


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest sample that `percent` of all do not exceed."""
    rank = math.ceil(percent / 100 * len(samples))
    return sorted(samples)[max(rank, 1) - 1]


Work = Callable[[int], Result | Iterable[Result] | Awaitable[Result | Iterable[Result]]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A registered benchmark: its name, how many rounds it runs by default, and its function."""

    name: str
    rounds: int
    function: Work


_registered: dict[str, Benchmark] = {}


def benchmark(*, rounds: int) -> Callable[[Work], Work]:
    """Register a function under its own name; `rounds` is what it runs unless the command line says otherwise."""

    def register(function: Work) -> Work:
        _registered[function.__name__] = Benchmark(function.__name__, rounds, function)
        return function

    return register


def benchmarks() -> dict[str, Benchmark]:
    """Every benchmark of the modules imported so far, by name."""
    return dict(_registered)


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def run(chosen: Benchmark, rounds: int | None = None) -> list[Result]:
    """Run one benchmark, in an event loop of its own if it is a coroutine function."""
    given: Any = chosen.function(rounds or chosen.rounds)
    if inspect.isawaitable(given):
        given = asyncio.run(_awaited(given))
    results = [given] if isinstance(given, Result) else list(given)
    return [replace(result, bench=chosen.name) for result in results]


def milliseconds(work: Callable[[], object]) -> float:
    """How long one call of `work` takes."""
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e6


def interleaved(
    ours: Callable[[], float], peer: Callable[[], float], rounds: int, *, warm: int = 1
) -> tuple[list[float], list[float]]:
    """Samples of both, taken in turns; each other round the peer goes first. `warm` rounds before are not counted."""
    samples: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + warm):
        pair = [(0, ours), (1, peer)]
        for index, measure in pair if number % 2 == 0 else reversed(pair):
            value = measure()
            if number >= warm:
                samples[index].append(value)
    return samples


_HEADS = ("name", "unit", "n", "median", "p95", "spread", "peer", "ratio", "target", "")


def _cells(result: Result) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"

    verdict = {True: "met", False: "MISSED", None: ""}[result.met]
    figures = (result.median, result.p95)
    return (
        result.name,
        result.unit,
        str(result.n),
        *(number(figure) for figure in figures),
        f"{result.spread:.0%}",
        *(number(figure) for figure in (result.peer, result.ratio, result.target)),
        verdict,
    )


def table(results: Iterable[Result]) -> str:
    """The results as lines of aligned columns."""
    rows = [_HEADS, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = []
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:-1], widths[2:-1], strict=True)]
        lines.append("  ".join([*left, *right, row[-1]]).rstrip())
    return "\n".join(lines)


def write(path: Path, machine: dict[str, object], results: Iterable[Result]) -> None:
    """Write `{"machine": …, "results": […]}` to `path`, in place of what was there."""
    document = {"machine": machine, "results": [result.document() for result in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document, indent=2) + "\n")
    fresh.replace(path)
