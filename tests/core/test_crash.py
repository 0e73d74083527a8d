"""`kill -9` of the calling Python at every named point of a container's start and end: nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from firkin.oci import Image

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


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_fault_point(point: str, busybox_image: Image, check_nothing_is_left: Callable[[], None]) -> None:
    environ = {**os.environ, "FIRKIN_FAULT": f"{point}=kill"}
    done = subprocess.run([*FIRKIN, "run", "busybox", "true"], env=environ, timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    check_nothing_is_left()


def test_killed_while_the_container_runs(busybox_image: Image, check_nothing_is_left: Callable[[], None]) -> None:
    command = [*FIRKIN, "run", "busybox", "sh", "-c", "echo ready; sleep 600"]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    owner.kill()
    owner.communicate()
    check_nothing_is_left()
