"""`runsc run` (gVisor) of the same command, where it is installed: the peer of `firkin bench`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from firkin.oci.busybox import find_busybox

__all__ = ["runsc_first_byte"]


def runsc_first_byte(rounds: int) -> list[float]:
    """Milliseconds from a call of `runsc run` to its first byte, each; empty where there is no runsc that runs."""
    runsc = shutil.which("runsc")
    if runsc is None:
        return []
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as name:
        bundle = Path(name)
        (bundle / "rootfs/bin").mkdir(parents=True)
        shutil.copy(find_busybox(), bundle / "rootfs/bin/busybox")
        (bundle / "rootfs/bin/echo").symlink_to("busybox")
        subprocess.run([runsc, "spec", "--", "/bin/echo", "hi"], cwd=bundle, check=True, capture_output=True)
        config = json.loads((bundle / "config.json").read_text())
        config["process"]["terminal"] = False
        (bundle / "config.json").write_text(json.dumps(config))
        samples = [_first_byte(runsc, bundle, number) for number in range(rounds + 1)]
    return [sample for sample in samples[1:] if sample]


def _first_byte(runsc: str, bundle: Path, number: int) -> float:
    name = f"firkin-bench-{os.getpid()}-{number}"
    command = [runsc, "--network=none", "--ignore-cgroups", "run", "--bundle", str(bundle), name]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        data = process.stdout.read(1)
        took = (time.perf_counter() - began) * 1e3
        process.stdout.read()
    return took if data else 0.0
