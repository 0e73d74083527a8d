"""Volumes on disk: made whole or not at all, named well, held by one writer or many readers. No VM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firkin import Volume
from firkin.core.volumes import hold_volume, remove_volume
from firkin.errors import InvalidInputError, NotFoundError, StateError
from firkin.ext4 import needs_recovery
from firkin.types import Size, StateDirs

CREATE = "from firkin import Volume; Volume.create('made', size='4m')"
REMOVE = "from firkin import Volume; Volume.get('made').remove()"


@pytest.fixture
def dirs(fresh_home: Path) -> StateDirs:
    return StateDirs.under(fresh_home)


def test_a_volume_is_an_ext4_image_of_its_size(dirs: StateDirs) -> None:
    made = Volume.create("data", size="8m", labels={"a": "b"})
    assert made == Volume.get("data", dirs=dirs)
    assert (made.size, made.path.stat().st_size, made.labels) == (Size.mib(8), 8 << 20, {"a": "b"})
    assert made.bytes < 1 << 20, "only what is written takes room"
    assert not needs_recovery(made.path)
    assert not made.in_use
    assert [volume.name for volume in Volume.all()] == ["data"]
    with pytest.raises(StateError, match="there is a volume data already"):
        Volume.create("data")
    made.remove()
    assert Volume.all() == []
    with pytest.raises(NotFoundError, match="there is no volume data"):
        Volume.get("data")


@pytest.mark.needs_tool("e2fsck")
def test_its_file_system_is_sound(dirs: StateDirs) -> None:
    path = Volume.create(size="64m").path
    assert subprocess.run(["e2fsck", "-fn", path], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "-x", "a" * 129, "two words", "ü", "a\n"])
def test_names_that_no_folder_should_have(dirs: StateDirs, name: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a volume's name"):
        Volume.create(name)
    with pytest.raises(InvalidInputError, match="is not a volume's name"):
        Volume.get(name)
    with pytest.raises(InvalidInputError):
        remove_volume(name)


@pytest.mark.parametrize("size", ["1k", "0", "many"])
def test_sizes_that_hold_nothing(dirs: StateDirs, size: str) -> None:
    with pytest.raises(InvalidInputError):
        Volume.create("small", size=size)
    assert Volume.all() == []


def test_one_writes_or_many_read(dirs: StateDirs) -> None:
    with hold_volume("data", read_only=False) as volume:
        assert volume.in_use, "it was made by its first use"
        for read_only in (True, False):
            with pytest.raises(StateError, match="the volume data is in use by another container"), _held(read_only):
                pass
        with pytest.raises(StateError, match="the volume data is in use"):
            volume.remove()
        assert Volume.prune() == []
    with _held(True), _held(True):
        with pytest.raises(StateError, match="in use"), _held(False):
            pass
        assert Volume.get("data").in_use
    assert [volume.name for volume in Volume.prune()] == ["data"]


def _held(read_only: bool) -> object:
    return hold_volume("data", read_only=read_only)


def test_another_process_holds_it_until_it_dies(dirs: StateDirs) -> None:
    code = "import time; from firkin.core.volumes import hold_volume\nwith hold_volume('data', read_only=False):"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{code} print('held', flush=True); time.sleep(600)"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert Volume.get("data").in_use
    holder.kill()
    holder.communicate()
    assert not Volume.get("data").in_use


@pytest.mark.parametrize(
    ("code", "point"), [(CREATE, "volume.before-publish"), (REMOVE, "volume.removing")], ids=["create", "remove"]
)
def test_killed_half_way_leaves_no_half_volume(dirs: StateDirs, code: str, point: str) -> None:
    if code == REMOVE:
        Volume.create("made", size="4m")
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "FIRKIN_FAULT": f"{point}=kill"}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert Volume.all() == []
    Volume.create("made", size="4m")
    assert [path.name for path in (dirs.data / "volumes").iterdir()] == ["made"], "what was left is gone"


def test_a_damaged_one_is_told_and_can_be_removed(dirs: StateDirs) -> None:
    volume = Volume.create("data")
    (volume.path.parent / "volume.json").write_text("{")
    with pytest.raises(StateError, match="the volume data is damaged"):
        Volume.get("data")
    assert Volume.all() == []
    remove_volume("data")
    assert list((dirs.data / "volumes").iterdir()) == []


def test_the_command_line(dirs: StateDirs) -> None:
    def firkin(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-c", "from firkin.cli import main; main()", "volume", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done.stdout or done.stderr

    assert firkin("create", "--size", "8m", "-l", "tier=gold", "one") == "one\n"
    (random,) = firkin("create").split()
    assert len(random) == 32
    assert firkin("ls", "-q").split() == sorted(["one", random])
    assert firkin("ls", "-q", "--filter", "label=tier=gold") == "one\n"
    assert [row["name"] for row in json.loads(firkin("ls", "--format", "json"))] == sorted(["one", random])
    assert "8 MiB" in firkin("ls")
    (document,) = json.loads(firkin("inspect", "one"))
    assert (document["size"], document["labels"], document["in_use"]) == (8 << 20, {"tier": "gold"}, False)
    with hold_volume("one", read_only=True):
        assert "the volume one is in use" in firkin("rm", "one", code=125)
    assert firkin("rm", "one") == "one\n"
    assert "there is no volume one" in firkin("rm", "one", code=125)
    assert firkin("rm", "-f", "one") == ""
    assert firkin("create", "no/name", code=125).startswith("firkin: 'no/name' is not a volume's name")
    assert firkin("prune").splitlines()[0] == random
    assert firkin("ls", "--format", "json") == "[]\n"
