"""`kill -9` of an owner with shares at named points: no virtiofsd is left, nor anything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firkin.oci import Image
from firkin.types import StateDirs
from firkin.vmm import live
from tests.leftovers import of_marks, snapshot

pytestmark = pytest.mark.vm
FIRKIN = (sys.executable, "-c", "from firkin.cli import main; main()")


def _processes(home: Path) -> list[object]:
    return [found for found in of_marks(snapshot([], (str(home),)), (str(home),)) if found.kind == "process"]


@pytest.mark.parametrize("point", ["share.started", "boot.spawned", "launch.started", "stop.before-end"])
def test_an_owner_that_is_killed_leaves_no_virtiofsd(
    point: str, home: Path, busybox_image: Image, tmp_path: Path
) -> None:
    environ = {**os.environ, "FIRKIN_FAULT": f"{point}=kill"}
    command = [*FIRKIN, "run", "-v", f"{tmp_path}:/s", "busybox", "ls", "/s"]
    done = subprocess.run(command, env=environ, timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    limit = time.monotonic() + 5
    while (left := _of_share(tmp_path)) and time.monotonic() < limit:
        time.sleep(0.02)
    assert left == []
    assert _processes(home) == []
    assert live(StateDirs.under(home)) == []


def _of_share(source: Path) -> list[int]:
    """Processes that have the folder as their root, or are about to."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                mounts, command = (path / "mountinfo").read_text(), (path / "cmdline").read_bytes()
            except OSError:
                continue
            if f" {source} / " in mounts or f" {source} /run/share " in mounts or os.fsencode(source) in command:
                found.append(int(path.name))
    return found
