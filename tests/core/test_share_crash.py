"""`kill -9` of an owner with shares at named points: no virtiofsd is left, nor anything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin.oci import Image

pytestmark = pytest.mark.vm
FIRKIN = (sys.executable, "-c", "from firkin.cli import main; main()")


@pytest.mark.parametrize("point", ["share.started", "boot.spawned", "launch.started", "stop.before-end"])
def test_an_owner_that_is_killed_leaves_no_virtiofsd(
    point: str, busybox_image: Image, tmp_path: Path, check_nothing_is_left: Callable[[], None]
) -> None:
    environ = {**os.environ, "FIRKIN_FAULT": f"{point}=kill"}
    command = [*FIRKIN, "run", "-v", f"{tmp_path}:/s", "busybox", "ls", "/s"]
    done = subprocess.run(command, env=environ, timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    limit = time.monotonic() + 5
    while (left := _of_share(tmp_path)) and time.monotonic() < limit:
        time.sleep(0.02)
    assert left == []
    check_nothing_is_left()


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
