"""The command line of snapshots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin import Container, Stdio
from firkin.core.snapshots import Snapshots
from firkin.oci import Image
from firkin.types import StateDirs

pytestmark = pytest.mark.vm
FIRKIN = (sys.executable, "-c", "from firkin.cli import main; main()")


def firkin(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*FIRKIN, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def ticking(busybox_image: Image, home: Path) -> Iterator[str]:
    """The name of a snapshot whose process ends, with 3, as soon as a clone has a file /go."""
    name, second = f"ticking-{os.getpid()}", f"second-{os.getpid()}"
    script = "until [ -e /go ]; do sleep 0.05; done; echo gone; exit 3"
    # A clone has the streams that its source has: one whose output went nowhere has none to be joined to.
    with Container.launch(
        "busybox", ["sh", "-c", script], name="source", memory="256m", cpus=1, stdout=Stdio.PIPED
    ) as container:
        made = firkin("snapshot", "create", "source", name)
        assert made.stdout == f"{name}\n"
        assert "disk0-0.qcow2: " in made.stderr
        report = json.loads(firkin("snapshot", "create", "source", second, "--format", "json").stdout)
        assert report["paused"] > 0
        taken = firkin("snapshot", "create", "source", second, code=125)
        assert taken.stderr.startswith(f"firkin: there is a snapshot {second} already")
        assert container.run(["touch", "/go"]).returncode == 0
    yield name
    Snapshots(StateDirs.under(home)).remove(name)


def test_they_are_listed_inspected_and_removed(ticking: str) -> None:
    second = f"second-{os.getpid()}"
    assert {second, ticking} <= set(firkin("snapshot", "ls", "-q").stdout.split())
    (entry,) = (
        row for row in json.loads(firkin("snapshot", "ls", "--format", "json").stdout) if row["name"] == ticking
    )
    assert entry["memory"] == 256 << 20
    assert "IMAGE" in firkin("snapshot", "ls").stdout
    (told,) = json.loads(firkin("snapshot", "inspect", ticking).stdout)
    assert told["needs"]["cpus"] == 1
    assert firkin("snapshot", "rm", second).stdout == f"{second}\n"
    assert firkin("snapshot", "rm", second, code=125).stderr.startswith("firkin: there is no snapshot")
    assert firkin("restore", second, code=125).stderr.startswith("firkin: there is no snapshot")


def test_a_clone_in_the_foreground_ends_as_its_process_does(ticking: str) -> None:
    restored = subprocess.Popen(
        [*FIRKIN, "restore", "--name", "foreground", ticking], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _touch("foreground")
    out, err = restored.communicate(timeout=60)
    assert (out, restored.returncode) == ("gone\n", 3), err


def test_several_clones_are_named_and_waited_for(ticking: str) -> None:
    restored = subprocess.Popen(
        [*FIRKIN, "restore", "-n", "3", "--name", "many", ticking], stdout=subprocess.PIPE, text=True
    )
    for index in range(3):
        _touch(f"many-{index}")
    out, _ = restored.communicate(timeout=60)
    assert out.split() == ["many-0", "many-1", "many-2"]
    assert restored.returncode == 3


def _touch(name: str) -> None:
    """As soon as the container is there. It ends by that, perhaps before it is told that the file was made."""
    import time

    limit = time.monotonic() + 60
    while name not in firkin("ps", "-q").stdout.split():
        assert time.monotonic() < limit
    done = subprocess.run([*FIRKIN, "exec", name, "touch", "/go"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 or "ended under the call" in done.stderr, done.stderr
