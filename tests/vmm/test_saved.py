"""Saved VMs in their folders: what they need of a host, and that nothing missing or altered is ever restored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firkin.errors import InvalidInputError, NotFoundError, StateError
from firkin.types import VirtiofsTag
from firkin.vmm.config import Disk, Share, VmConfig
from firkin.vmm.needs import Needs
from firkin.vmm.save import check_savable
from firkin.vmm.saved import FORMAT, MAX_LAYERS, Saved, hash_file, open_saved, remember, write_json
from tests.vmm.test_argv import KVM, TCG

CONTENT = {"ram": b"memory", "state": b"devices", "disk0.raw": b"root", "disk0-0.qcow2": b"layer"}


def make(
    folder: Path,
    *,
    layers: int = 1,
    boot_id: str = "boot",
    ram: Callable[[Path], object] = lambda path: path.write_bytes(CONTENT["ram"]),
) -> Path:
    """What `firkin.vmm.save` leaves, without a VM."""
    folder.mkdir()
    names = [f"disk0-{number}.qcow2" for number in range(layers)]
    files = {}
    for name, content in {**CONTENT, **dict.fromkeys(names, b"layer")}.items():
        ram(folder / name) if name == "ram" else (folder / name).write_bytes(content)
        files[name] = os.open(folder / name, os.O_RDONLY)
    described = {name: {"bytes": os.fstat(fd).st_size, "sha256": hash_file(fd)} for name, fd in files.items()}
    manifest = {
        "format": FORMAT,
        "needs": Needs.of(VmConfig(), TCG).as_document(),
        "schema": "00" * 16,
        "sentinel": "11" * 16,
        "epoch": 3,
        "disks": [{"image": "disk0.raw", "layers": names, "read_only": False}],
        "document": {"who": "me"},
        "files": described,
    }
    write_json(folder / "manifest.json", manifest)
    remember(folder, files, boot_id)
    for fd in files.values():
        os.close(fd)
    return folder


def opened(folder: Path, boot_id: str = "boot") -> Saved:
    return open_saved(folder, boot_id=boot_id, what="snapshot x")


def test_it_opens_as_it_was_saved_and_outlives_its_folder(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    with opened(folder) as saved:
        assert (saved.epoch, saved.sentinel, saved.document) == (3, b"\x11" * 16, {"who": "me"})
        for name in CONTENT:
            (folder / name).unlink()
        assert {name: saved.path(name).read_bytes() for name in CONTENT} == CONTENT
    assert saved.files == {}


@pytest.mark.parametrize("name", [*CONTENT, "manifest.json"])
@pytest.mark.parametrize("boot_id", ["boot", "another"])
def test_an_altered_file_is_refused(tmp_path: Path, name: str, boot_id: str) -> None:
    folder = make(tmp_path / "x")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(b"me", b"ne").replace(b"r", b"R").replace(b"devi", b"deri"))
    with pytest.raises(StateError, match="snapshot x"):
        opened(folder, boot_id)
    assert (folder / "ram").exists(), "it is the user's to remove"


@pytest.mark.parametrize("name", [*CONTENT, "manifest.json"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "x")
    (folder / name).unlink()
    with pytest.raises(StateError, match=f"snapshot x is not whole: {name} is missing") as caught:
        opened(folder)
    assert not isinstance(caught.value, NotFoundError)


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no snapshot x"):
        opened(tmp_path / "x")


DAMAGED: list[Callable[[Path], object]] = [
    lambda path: path.write_text("{"),
    lambda path: path.write_text("[]"),
    lambda path: path.write_text(json.dumps({"format": FORMAT + 1, "files": {}})),
    lambda path: path.write_text(json.dumps({"format": FORMAT, "files": {"../ram": {}}})),
    lambda path: path.write_text(json.dumps({"format": FORMAT, "files": {"ram": {}}})),
    lambda path: path.write_bytes(b"x" * (5 << 20)),
]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = make(tmp_path / "x")
    damage(folder / "manifest.json")
    (folder / "verified.json").unlink()
    with pytest.raises(StateError, match="snapshot x"):
        opened(folder)


def test_what_was_hashed_once_is_known_again(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    (folder / "verified.json").unlink()
    with opened(folder):
        pass
    noted = (folder / "verified.json").read_bytes()
    # A link, as another snapshot of the same root makes one, is no alteration.
    os.link(folder / "disk0.raw", tmp_path / "other")
    with opened(folder):
        pass
    assert (folder / "verified.json").read_bytes() == noted
    with opened(folder, "another start of the host"):
        pass
    assert (folder / "verified.json").read_bytes() != noted


def test_a_clones_overlay_begins_empty_until_the_chain_is_long(tmp_path: Path) -> None:
    with opened(make(tmp_path / "x", layers=MAX_LAYERS - 1)) as saved:
        (disk,) = saved.disks()
        assert (len(disk.layers), disk.top) == (MAX_LAYERS - 1, None)
        (disk,) = saved.disks(copy=True)
        assert (len(disk.layers), disk.top) == (MAX_LAYERS - 2, saved.path(f"disk0-{MAX_LAYERS - 2}.qcow2"))
    with opened(make(tmp_path / "y", layers=MAX_LAYERS)) as saved:
        (disk,) = saved.disks()
        assert (len(disk.layers), disk.top) == (MAX_LAYERS - 1, saved.path(f"disk0-{MAX_LAYERS - 1}.qcow2"))


OTHERS = [
    ("machine", replace(TCG, machine="virt")),
    ("QEMU", replace(TCG, qemu_version=(9, 0, 0))),
    ("accelerator", KVM),
    ("TSC rate", replace(TCG, tsc_khz=1_000_000)),
]


@pytest.mark.parametrize(("what", "host"), OTHERS)
def test_a_host_that_lacks_something_is_told_what(what: str, host: object) -> None:
    needs = Needs.of(VmConfig(), TCG)
    needs.check(Needs.of(VmConfig(), replace(TCG, tsc_khz=TCG.tsc_khz + 3)), "snapshot x")
    with pytest.raises(StateError, match=f"snapshot x was saved with another {what}"):
        needs.check(Needs.of(VmConfig(), host), "snapshot x")  # type: ignore[arg-type]
    assert Needs.from_document(needs.as_document()) == needs


def test_another_shape_is_told_too() -> None:
    needs = Needs.of(VmConfig(), TCG)
    for change in ({"cpus": 1}, {"memory": 256 << 20}, {"cpu_model": "max"}, {"disks": (Disk(Path("/x")),)}):
        with pytest.raises(StateError, match="was saved with another"):
            needs.check(Needs.of(replace(VmConfig(), **change), TCG), "x")  # type: ignore[arg-type]


def test_what_can_not_be_saved_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"a live share \(/x\)"):
        check_savable(VmConfig(shares=(Share(VirtiofsTag("home"), Path("/x")),)))
    check_savable(VmConfig(disks=(Disk(Path(__file__)),)))
