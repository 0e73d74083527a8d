"""`kill -9` at every point of saving, publishing, restoring and removing: nothing torn is offered, nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firkin import Container
from firkin.core.snapshots import Snapshots
from firkin.oci import Image
from firkin.types import StateDirs

pytestmark = pytest.mark.vm

SCRIPT = """if True:
    import sys
    from firkin import Container
    from firkin.core.snapshots import Snapshots
    from firkin.types import StateDirs
    what, name = sys.argv[1:]
    if what == "save":
        with Container.launch("busybox", ["sleep", "600"], memory="256m", cpus=1) as container:
            container.snapshot(name)
    elif what == "fork":
        with Container.launch("busybox", ["sleep", "600"], memory="256m", cpus=1) as container:
            for clone in container.fork(1):
                clone.close()
    elif what == "lease":
        from firkin import WarmPool
        with WarmPool("busybox", size=1, memory="256m", cpus=1) as pool, pool.lease(["true"]) as container:
            container.wait()
    elif what == "restore":
        with Container.restore(name) as container:
            assert container.run(["true"]).returncode == 0
    else:
        Snapshots(StateDirs.default()).remove(name)
"""
SAVING = ("snapshot.created", "snapshot.quiesced", "save.stopped", "save.written", "snapshot.before-publish")
RESTORING = ("restore.leased", "restore.vm-ready", "restore.thawed")


def run(what: str, name: str, point: str) -> None:
    environ = {**os.environ, "FIRKIN_FAULT": f"{point}=kill"}
    command = [sys.executable, "-c", SCRIPT, what, name]
    done = subprocess.run(command, env=environ, timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.fixture(scope="module")
def saved(busybox_image: Image, home: Path) -> Iterator[str]:
    with Container.launch("busybox", ["sleep", "600"], memory="256m", cpus=1) as container:
        container.snapshot(f"killed-{os.getpid()}")
    yield f"killed-{os.getpid()}"
    Snapshots(StateDirs.under(home)).remove(f"killed-{os.getpid()}")


def hidden(snapshots: Snapshots, name: str) -> list[str]:
    """What a look at the list has left of the folders of `name`."""
    list(snapshots)
    return [path.name for path in snapshots.root.iterdir() if name in path.name and path.name.startswith(".")]


@pytest.mark.parametrize("point", SAVING)
def test_killed_while_saving(
    point: str, home: Path, busybox_image: Image, check_nothing_is_left: Callable[[], None]
) -> None:
    snapshots, name = Snapshots(StateDirs.under(home)), f"torn-{os.getpid()}"
    run("save", name, point)
    check_nothing_is_left()
    assert name not in [info.name for info in snapshots]
    assert hidden(snapshots, name) == []


def test_killed_once_it_is_published(
    home: Path, busybox_image: Image, check_nothing_is_left: Callable[[], None]
) -> None:
    snapshots, name = Snapshots(StateDirs.under(home)), f"whole-{os.getpid()}"
    run("save", name, "snapshot.published")
    check_nothing_is_left()
    with Container.restore(name) as clone:
        assert clone.run(["true"]).returncode == 0
    run("remove", name, "snapshot.removing")
    assert name not in [info.name for info in snapshots]
    assert hidden(snapshots, name) == []


@pytest.mark.parametrize("point", RESTORING)
def test_killed_while_restoring(point: str, saved: str, check_nothing_is_left: Callable[[], None]) -> None:
    run("restore", saved, point)
    check_nothing_is_left()
    with Container.restore(saved) as clone:
        assert clone.run(["true"]).returncode == 0


@pytest.mark.parametrize("point", ["pool.ready", "pool.leased"])
def test_killed_while_leasing(point: str, busybox_image: Image, check_nothing_is_left: Callable[[], None]) -> None:
    run("lease", "unused", point)
    check_nothing_is_left()


def test_killed_while_forking(home: Path, busybox_image: Image, check_nothing_is_left: Callable[[], None]) -> None:
    run("fork", "unused", "restore.vm-ready")
    check_nothing_is_left()
    assert hidden(Snapshots(StateDirs.under(home)), "") == []
