"""`python -m bench [--quick] [--rounds N] [--list] [NAME…]`: run benchmarks, print the table, write the JSON file.

A NAME is a benchmark's, or the beginning of one, or of the module that it is in. Ends with 1 if a benchmark failed; a
missed target is shown, and does not fail the run: the machine may not be the one that the targets were set for.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import bench
from bench.harness import Benchmark, Result, benchmarks, run, table, write
from bench.machine import describe

RESULTS = Path(__file__).resolve().parent / "results" / "latest.json"
# Not the user's own state, which may hold images and base VMs that change the figures.
HOME = RESULTS.parents[2] / ".build" / "bench-home"
SHARED = ("__main__", "harness", "machine")


def discover() -> dict[str, Benchmark]:
    """Import every module of this folder and return what they registered."""
    for module in sorted(found.name for found in pkgutil.iter_modules(bench.__path__)):
        if module not in SHARED:
            importlib.import_module(f"bench.{module}")
    return benchmarks()


def select(known: dict[str, Benchmark], names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks that `names` mean; all, if there is none. Raises `SystemExit` for a name that means nothing."""
    if not names:
        return list(known.values())
    chosen: dict[str, Benchmark] = {}
    for name in names:
        fits = [each for each in known.values() if f"{each.function.__module__}.".startswith(f"bench.{name}.")]
        fits += [each for each in known.values() if each.name.startswith(name)]
        if not fits:
            raise SystemExit(f"bench: no benchmark is called {name} (--list shows them)")
        chosen.update((each.name, each) for each in fits)
    return list(chosen.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Run benchmarks and write results/latest.json."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a benchmark, a module, or the beginning of a name")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--rounds", type=int, help="so many rounds of each")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds, at least two")
    options = parser.parse_args(arguments)
    os.environ.setdefault("FIRKIN_HOME", str(HOME))
    chosen = select(discover(), options.names)
    if options.list:
        print("\n".join(f"{each.name} ({each.rounds} rounds)" for each in chosen))
        return 0
    results: list[Result] = []
    failed = 0
    for each in chosen:
        rounds = options.rounds or (max(2, each.rounds // 10) if options.quick else each.rounds)
        print(f"bench: {each.name}, {rounds} rounds", file=sys.stderr)
        try:
            results += run(each, rounds)
        except Exception:  # noqa: BLE001 - one that fails must not take the figures of the others with it
            failed += 1
            print(f"bench: {each.name} failed\n{traceback.format_exc()}", file=sys.stderr)
    machine = describe()
    write(RESULTS, machine, results)
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    print(table(results))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
