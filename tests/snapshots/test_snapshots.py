"""The snapshots of a state: names, lists, removal, and what dead processes left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firkin.core.snapshots import Snapshots
from firkin.errors import InvalidInputError, NotFoundError, StateError
from firkin.types import StateDirs
from tests.vmm.test_saved import make

DOCUMENT = {"image": "localhost/busybox:latest", "spec": {"process": {"args": ["sleep", "9"]}}}


@pytest.fixture
def snapshots(fresh_home: Path) -> Snapshots:
    return Snapshots(StateDirs.under(fresh_home))


def fill(folder: Path, **content: Any) -> None:
    """What a save writes."""
    made = make(folder / "made", **content)
    for file in made.iterdir():
        file.rename(folder / file.name)
    made.rmdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"created": "2026-11-25T18:00:00+00:00", "report": {"paused": 0.03}, "document": DOCUMENT}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "verified.json").unlink()


def test_one_is_made_listed_and_removed(snapshots: Snapshots) -> None:
    assert list(snapshots) == []
    with snapshots.making("b") as folder:
        fill(folder)
        assert list(snapshots) == [], "not before it is whole"
    with snapshots.making("a") as folder:
        fill(folder)
    assert [info.name for info in snapshots] == ["a", "b"]
    info = snapshots.info("a")
    assert (info.image, info.command, info.cpus) == ("localhost/busybox:latest", ("sleep", "9"), 2)
    assert info.bytes > 0
    json.dumps(info.as_document())
    snapshots.remove("a")
    assert [info.name for info in snapshots] == ["b"]
    assert [path.name for path in snapshots.root.iterdir()] == ["b"]


def test_a_name_is_taken_once(snapshots: Snapshots) -> None:
    with snapshots.making("a") as folder:
        fill(folder)
    with pytest.raises(StateError, match="a snapshot a already"), snapshots.making("a"):
        pass
    # Also where another came first while this one was made.
    first = snapshots.making("late")
    first.__enter__()
    with snapshots.making("late") as folder:
        fill(folder)
    with pytest.raises(StateError, match="a snapshot late already"):
        first.__exit__(None, None, None)
    assert sorted(path.name for path in snapshots.root.iterdir()) == ["a", "late"]


def test_a_failed_one_leaves_nothing(snapshots: Snapshots) -> None:
    def fail() -> None:
        with snapshots.making("a") as folder:
            fill(folder)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(snapshots.root.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "x" * 65])
def test_what_can_not_name_one(snapshots: Snapshots, name: str) -> None:
    with pytest.raises(InvalidInputError):
        snapshots.path(name)


def test_what_is_not_there_or_not_whole(snapshots: Snapshots) -> None:
    with pytest.raises(NotFoundError, match="no snapshot a"):
        snapshots.info("a")
    with pytest.raises(NotFoundError, match="no snapshot a"):
        snapshots.remove("a")
    with snapshots.making("a") as folder:
        fill(folder)
    (snapshots.path("a") / "manifest.json").unlink()
    with pytest.raises(StateError, match="not whole"):
        snapshots.info("a")
    assert list(snapshots) == []
    snapshots.remove("a")


def test_the_folders_of_the_dead_are_swept_those_of_the_living_are_not(snapshots: Snapshots) -> None:
    with snapshots.scratch("alive") as folder:
        for left in (".new-dead-1", ".gone-dead-2"):
            (snapshots.root / left).mkdir()
            (snapshots.root / left / "ram").write_bytes(b"x")
        assert list(snapshots) == []
        assert [path.name for path in snapshots.root.iterdir()] == [folder.name]
    assert list(snapshots.root.iterdir()) == []
