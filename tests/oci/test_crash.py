"""Killed at every fault point: the store is valid, nothing is lost, a second try succeeds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import firkin.oci.busybox
import firkin.oci.collect
import firkin.oci.load  # noqa: F401 - declares its fault points
from firkin import faults
from firkin.errors import ImageError
from firkin.oci import ImageStore
from firkin.types.state import StateDirs
from tests.oci.builders import Concatenated, Layout, layer_tar, sha256

ROOT = Path(__file__).resolve().parents[2]
LOAD = [
    "oci.ingest.partial",
    "oci.ingest.flushed",
    "oci.ingest.renamed",
    "oci.reference.written",
    "oci.reference.moved",
]
LOAD += ["oci.load.blobs", "oci.load.named"]
CONVERT = ["oci.convert.started", "oci.convert.layer", "oci.convert.written", "oci.convert.published"]
PRUNE = ["oci.prune.unnamed", "oci.prune.blob", "oci.prune.rootfs"]

SCRIPT = """
import sys
from pathlib import Path
from firkin.oci import ImageStore
from firkin.types.state import StateDirs
from tests.oci.builders import Concatenated
verb, home, layout = sys.argv[1:]
store = ImageStore(StateDirs.under(Path(home)), write_image=Concatenated())
if verb == "load":
    store.load(Path(layout))
elif verb == "convert":
    store.rootfs(store.resolve("new:1")).release()
else:
    store.prune(everything=True)
"""


def run(verb: str, home: Path, layout: Path, fault: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, verb, str(home), str(layout)],
        env={**os.environ, "FIRKIN_FAULT": fault, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def prepare(tmp_path: Path) -> tuple[ImageStore, Path, Path]:
    """A store with an image `old:1`, and a layout that moves `old:1` and adds `new:1`."""
    home = tmp_path / "home"
    store = ImageStore(StateDirs.under(home), write_image=Concatenated())
    old = Layout()
    old.name("localhost/old:1", old.image({"old": b"old"}))
    store.load(old.write(tmp_path / "old"))
    new = Layout()
    target = new.image({"new": b"new"}, {"more": bytes(3 << 20)})
    new.name("localhost/old:1", target).name("localhost/new:1", target)
    return store, home, new.write(tmp_path / "new")


def check(store: ImageStore) -> None:
    """Every blob is whole, every name leads to an image whose layers convert."""
    for digest in store.content:
        assert sha256(store.content.path(digest).read_bytes()) == digest
    for entry in store.images():
        image = ImageStore.resolve(store, str(entry.target.digest))
        with store.rootfs(image) as lease:
            assert lease.path.read_bytes()


def test_every_fault_point_of_the_store_is_hit_here() -> None:
    # Those of a pull are hit by the registry's tests.
    known = {name for name in faults.declared() if name.startswith("oci.") and not name.startswith("oci.pull.")}
    assert known == {*LOAD, *CONVERT, *PRUNE}


@pytest.mark.parametrize("fault", LOAD)
@pytest.mark.parametrize("action", ["kill", "enospc"])
def test_load(tmp_path: Path, fault: str, action: str) -> None:
    store, home, layout = prepare(tmp_path)
    before = store.resolve("old:1").digest
    ended = run("load", home, layout, f"{fault}={action}")
    assert ended.returncode == (-signal.SIGKILL if action == "kill" else 1), ended.stderr
    check(ImageStore(StateDirs.under(home), write_image=Concatenated()))
    assert before in {image.target.digest for image in store.images()}
    (first, second) = store.load(layout)
    assert first.digest == second.digest == store.resolve("new:1").digest == store.resolve("old:1").digest
    store.prune()
    assert not list((home / "data/images/ingest").iterdir())
    assert not list((home / "data/images/leases").iterdir())
    assert not list((home / "data/images/references").glob(".*"))
    check(store)


@pytest.mark.parametrize("fault", CONVERT)
@pytest.mark.parametrize("action", ["kill", "enospc"])
def test_convert(tmp_path: Path, fault: str, action: str) -> None:
    store, home, layout = prepare(tmp_path)
    store.load(layout)
    ended = run("convert", home, layout, f"{fault}={action}")
    assert ended.returncode == (-signal.SIGKILL if action == "kill" else 1), ended.stderr
    with store.rootfs(store.resolve("new:1")) as lease:
        assert lease.path.read_bytes() == layer_tar({"new": b"new"}) + layer_tar({"more": bytes(3 << 20)})
    store.prune()
    assert [path.suffix for path in (home / "cache/rootfs").iterdir()] == [".ext4"]


@pytest.mark.parametrize("fault", PRUNE)
@pytest.mark.parametrize("action", ["kill", "raise"])
def test_prune(tmp_path: Path, fault: str, action: str) -> None:
    store, home, layout = prepare(tmp_path)
    store.load(layout)
    kept = store.resolve("new:1")
    store.rootfs(store.resolve("old:1")).release()
    (home / "cache/rootfs" / f"{'0' * 64}-1-1.ext4").write_bytes(b"of an image that is gone")
    with store.rootfs(kept):
        ended = run("prune", home, layout, f"{fault}={action}")
        assert ended.returncode == (-signal.SIGKILL if action == "kill" else 1), ended.stderr
        check(store)
        assert store.resolve("new:1") == kept
    store.prune(everything=True)
    assert list(store.images()) == []
    assert list(store.content) == []
    assert list(store.rootfs_cache) == []


def test_a_failing_writer_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    _, home, layout = prepare(tmp_path)
    store = ImageStore(
        StateDirs.under(home), write_image=lambda layers, destination, *, size: refuse(next(iter(layers)))
    )
    image = store.load(layout)[0]
    with pytest.raises(ImageError, match="no such inode"):
        store.rootfs(image)
    assert list((home / "cache/rootfs").iterdir()) == []


def refuse(layer: object) -> None:
    raise ImageError(f"no such inode in {type(layer).__name__}")
