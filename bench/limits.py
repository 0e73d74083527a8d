"""What limits, statistics and an idle VM cost the host."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.harness import Result, benchmark
from firkin.types import StateDirs
from firkin.vmm.bounds import group_bounds
from firkin.vmm.config import VmConfig
from firkin.vmm.folder import VmFolder


@benchmark(rounds=30)
def cage_ms(rounds: int) -> Result:
    """Finding, making, bounding, entering and removing a VM's control groups."""
    config, samples = VmConfig(), []
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as home:
        for _ in range(rounds):
            with VmFolder.claim(StateDirs.under(Path(home)), "cage") as folder:
                began = time.perf_counter()
                folder.cage.bound(group_bounds(config, folder.path, [1]))
                with folder.cage.entered():
                    entered = time.perf_counter()
                folder.cage.remove()
                samples.append((entered - began) * 1e3)
            # The kernel takes removed groups apart for a while.
            time.sleep(0.05)
    return Result.of("cage_ms", samples, target=2)
