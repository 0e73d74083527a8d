"""`kill -9` of the calling Python at every named point of a container's start and end: nothing is left."""

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
POINTS = (
    "folder.claimed",
    "launch.image-ready",
    "network.opened",
    "boot.before-spawn",
    "boot.spawned",
    "launch.vm-ready",
    "launch.started",
    "control.bound",
    "stop.before-end",
    "folder.removing",
)


def _processes(home: Path) -> list[object]:
    return [found for found in of_marks(snapshot([], (str(home),)), (str(home),)) if found.kind == "process"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_fault_point(point: str, home: Path, busybox_image: Image) -> None:
    environ = {**os.environ, "FIRKIN_FAULT": f"{point}=kill"}
    done = subprocess.run([*FIRKIN, "run", "busybox", "true"], env=environ, timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    limit = time.monotonic() + 5
    while _processes(home) and time.monotonic() < limit:
        time.sleep(0.02)
    assert _processes(home) == []
    assert live(StateDirs.under(home)) == []


def test_killed_while_the_container_runs(home: Path, busybox_image: Image) -> None:
    command = [*FIRKIN, "run", "busybox", "sh", "-c", "echo ready; sleep 600"]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    owner.kill()
    owner.communicate()
    limit = time.monotonic() + 5
    while _processes(home) and time.monotonic() < limit:
        time.sleep(0.02)
    assert _processes(home) == []
    assert live(StateDirs.under(home)) == []
