"""vmexec beside crun, both warm, in one VM under emulation; and what of it is spent where."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import Result, benchmark
from firkin.types.state import StateDirs
from firkin.vmm.assets import guest_folder
from tests.vmexec.rig_vm import Outcome, Results, Row, boot
from tests.vmexec.specs import base, changed
from tests.vmexec.table import ROOT

WARM_UP = 3
TARGET = 0.25
# Each takes something away from the one before it: the difference is what that costs.
STAGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "all": lambda spec: spec,
    "without_cgroup": lambda spec: changed(spec, "linux.cgroupsPath", ""),
    "without_masks": lambda spec: changed(changed(spec, "linux.maskedPaths", []), "linux.readonlyPaths", []),
    "without_mounts": lambda spec: changed(spec, "mounts", []),
    "without_namespaces": lambda spec: changed(
        changed(spec, "linux.namespaces", [{"type": "mount"}, {"type": "uts"}]), "process.capabilities", {}
    ),
    "refused_when_read": lambda spec: changed(spec, "process.args", []),
}


@benchmark(rounds=15)
def vmexec_beside_crun(rounds: int) -> list[Result]:
    """From the start of the runtime to the end of a program that does nothing: a container's first, and one more."""
    run = _spec()
    process = run["process"]
    pause = changed(run, "process.args", ["/bin/probe", "pause"])
    rows = [Row(f"run {n}", run, run) for n in range(rounds + WARM_UP)]
    rows += [Row(f"exec {n}", pause, pause, {"process": process}, process) for n in range(rounds + WARM_UP)]
    results = _boot(rows)
    figures = []
    for kind in ("run", "exec"):
        ours, theirs = _samples(results.vmexec, kind), _samples(results.crun, kind)
        figures.append(Result.of(f"vmexec_{kind}_ms", ours, peer=theirs, target=TARGET))
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        name = "vmexec_ratio_crun" if kind == "run" else "vmexec_exec_ratio_crun"
        figures.append(Result.of(name, ratios, unit="ratio", target=TARGET))
    return figures


@benchmark(rounds=5)
def vmexec_stages(rounds: int) -> list[Result]:
    """The same program with less and less of a container around it, in millions of the guest's instructions.

    Counted, not timed: the steps are too small for the clock of a busy machine.
    """
    rows, spec = [], _spec()
    for name, without in STAGES.items():
        spec = without(spec)
        rows += [Row(f"{name} {n}", spec, None) for n in range(rounds + WARM_UP)]
    results = _boot(rows, count=True)
    per_ms = results.tsc_khz / 1e6
    return [
        Result.of(f"vmexec_{name}", [ms * per_ms for ms in _samples(results.vmexec, name)], unit="Minsn")
        for name in STAGES
    ]


def _spec() -> dict[str, Any]:
    return changed(base(ROOT, "/bin/probe", "quit"), "linux.cgroupsPath", "/firkin/t")


def _boot(rows: list[Row], *, count: bool = False) -> Results:
    with tempfile.TemporaryDirectory(prefix="fkb-") as scratch:
        return boot(Path(scratch), guest_folder() / "vmexec", StateDirs.default(), rows, bench=True, count=count)


def _samples(outcomes: dict[str, Outcome], kind: str) -> list[float]:
    """Milliseconds of the warm rounds."""
    found = [outcome for name, outcome in outcomes.items() if name.rpartition(" ")[0] == kind]
    return [outcome.total_us / 1000 for outcome in found[WARM_UP:]]
