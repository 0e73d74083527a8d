"""Base VMs in the cache: what names one, when one is believed, and which ones go."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firkin.errors import InvalidInputError
from firkin.vmm.assets import BootAssets
from firkin.vmm.base import Shape, collect, open_base, write_manifest
from firkin.vmm.config import BootLog, Disk, Network, VmConfig
from firkin.vmm.host import HostCapabilities
from firkin.vmm.kernel import KernelImage
from firkin.vmm.ramfile import digest, identity
from tests.vmm.test_argv import KVM, TCG

ASSETS = BootAssets(Path("/v"), Path("/i"), "kernel", "initramfs", KernelImage(Path("/k")))
STATE = b"state of the devices"


def shape(**changes: Any) -> Shape:
    host = replace(TCG, qemu="/bin/sh", qemu_identity=HostCapabilities.identity_of("/bin/sh"))
    return Shape.of(VmConfig(**changes), host, ASSETS)


def make(root: Path, name: str, *, inputs: str | None = None, size: int = 1 << 20) -> Path:
    """A base VM as a builder publishes it."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "state").write_bytes(STATE)
    with (folder / "ram").open("w+b") as ram:
        ram.truncate(size)
        ram.write(b"memory")
        ram.flush()
        manifest = {
            "inputs": inputs or shape().inputs,
            "sentinel": "00" * 16,
            "state": hashlib.sha256(STATE).hexdigest(),
            "ram": digest(ram.fileno()),
            "identity": [*identity(ram.fileno()), TCG.boot_id],
        }
    write_manifest(folder, manifest)
    return folder


CHANGES: list[Callable[[VmConfig, HostCapabilities, BootAssets], tuple[VmConfig, HostCapabilities, BootAssets]]] = [
    lambda c, h, a: (replace(c, cpus=1), h, a),
    lambda c, h, a: (replace(c, memory=256 << 20), h, a),
    lambda c, h, a: (replace(c, cmdline_extra="debug"), h, a),
    lambda c, h, a: (replace(c, cpu_model="max"), h, a),
    lambda c, h, a: (replace(c, nested=True), h, a),
    lambda c, h, a: (replace(c, networks=(Network(3, "52:54:00:00:00:01"),)), h, a),
    lambda c, h, a: (replace(c, disks=(Disk(Path("/dev/null")),)), h, a),
    lambda c, h, a: (replace(c, disks=(Disk(Path("/dev/null"), read_only=True),)), h, a),
    lambda c, h, a: (c, replace(h, qemu="/usr/local/bin/qemu"), a),
    lambda c, h, a: (c, replace(h, qemu_version=(8, 2, 0)), a),
    lambda c, h, a: (c, replace(h, qemu_identity="4 5 6"), a),
    lambda c, h, a: (c, replace(h, accelerator="tcg"), a),
    lambda c, h, a: (c, replace(h, processor="another"), a),
    lambda c, h, a: (c, replace(h, tsc_khz=2_400_000), a),
    lambda c, h, a: (c, replace(h, sandbox=False), a),
    lambda c, h, a: (c, h, replace(a, kernel_digest="another")),
    lambda c, h, a: (c, h, replace(a, initramfs_digest="another")),
]


def test_everything_that_a_saved_vm_depends_on_is_in_its_key() -> None:
    config = VmConfig()
    keys = {Shape.of(*change(config, KVM, ASSETS)).key for change in CHANGES}
    assert len(keys | {Shape.of(config, KVM, ASSETS).key}) == len(CHANGES) + 1


def test_what_a_fork_may_have_of_its_own_is_not(tmp_path: Path) -> None:
    images = [tmp_path / "a", tmp_path / "b"]
    for number, image in enumerate(images):
        image.write_bytes(bytes(1000 * number))
    one, other = (
        replace(
            VmConfig(),
            disks=(Disk(image),),
            networks=(Network(fd, f"52:54:00:00:00:0{fd}"),),
            boot_log=log,
        )
        for image, fd, log in zip(images, (3, 4), (None, BootLog.file("/x")), strict=True)
    )
    assert Shape.of(one, KVM, ASSETS) == Shape.of(other, KVM, ASSETS)
    # The counter's rate is measured anew after each start of the host, a little differently each time.
    assert Shape.of(one, replace(TCG, tsc_khz=2299998), ASSETS) == Shape.of(one, replace(TCG, tsc_khz=2300004), ASSETS)
    with pytest.raises(InvalidInputError, match="can't open the disk"):
        Shape.of(replace(one, disks=(Disk(tmp_path / "absent"),)), KVM, ASSETS)


def test_a_sound_one_is_opened_without_hashing_its_ram(tmp_path: Path) -> None:
    folder = make(tmp_path, "a")

    def refuse(_fd: int) -> str:
        raise AssertionError("hashed")

    base = open_base(folder, TCG, rehash=refuse)
    assert base is not None
    with base:
        assert base.sentinel == bytes(16)
        assert os.pread(base.state, 100, 0) == STATE
        assert os.lseek(base.state, 0, os.SEEK_CUR) == 0
        assert os.pread(base.ram, 6, 0) == b"memory"


def test_there_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert open_base(tmp_path / "absent", TCG) is None
    assert not caplog.records


def damage_state(folder: Path) -> None:
    (folder / "state").write_bytes(STATE[:-1] + b"X")


def damage_ram(folder: Path) -> None:
    with (folder / "ram").open("r+b") as ram:
        ram.write(b"M")


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def cut_ram(folder: Path) -> None:
    os.truncate(folder / "ram", 4096)


def lose_state(folder: Path) -> None:
    (folder / "state").unlink()


@pytest.mark.parametrize("damage", [damage_state, damage_ram, damage_manifest, cut_ram, lose_state])
def test_a_damaged_one_is_thrown_away(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path, "a")
    damage(folder)
    assert open_base(folder, TCG) is None
    assert list(tmp_path.iterdir()) == []
    if damage is not lose_state:
        assert "made again" in caplog.text


def test_after_a_restart_of_the_host_it_is_hashed_once(tmp_path: Path) -> None:
    folder = make(tmp_path, "a")
    calls = []

    def count(fd: int) -> str:
        calls.append(fd)
        return digest(fd)

    for _ in range(2):
        base = open_base(folder, replace(TCG, boot_id="after"), rehash=count)
        assert base is not None
        with base:
            pass
    assert len(calls) == 1


def test_a_touched_but_equal_ram_file_is_kept(tmp_path: Path) -> None:
    folder = make(tmp_path, "a")
    (folder / "ram").chmod(0o640)
    base = open_base(folder, TCG)
    assert base is not None
    with base:
        assert json.loads((folder / "manifest.json").read_text())["identity"][:4] == identity(base.ram)


def use(folder: Path, when: int) -> None:
    os.utime(folder / "manifest.json", (when, when))


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    for number, name in enumerate("abcde"):
        use(make(tmp_path, name), 1000 + number)
    assert sorted(collect(tmp_path, keep="a", most=3)) == ["b", "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d", "e"]


def test_their_bytes_are_bounded_too(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        folder = make(tmp_path, name)
        (folder / "ram").write_bytes(b"x" * (1 << 20))
        use(folder, 1000 + number)
    assert sorted(collect(tmp_path, keep="a", most_bytes=5 << 19)) == ["b"]


def test_what_can_never_match_again_goes(tmp_path: Path) -> None:
    inputs = json.loads(shape().inputs)
    make(tmp_path, "good")
    make(tmp_path, "old", inputs=json.dumps(inputs | {"format": 0}))
    make(tmp_path, "other-qemu", inputs=json.dumps(inputs | {"qemu": ["/bin/sh", [7, 2, 0], "1 2 3"]}))
    make(tmp_path, "no-qemu", inputs=json.dumps(inputs | {"qemu": ["/nowhere/qemu", [7, 2, 0], "1 2 3"]}))
    assert sorted(collect(tmp_path, keep="x")) == ["no-qemu", "old", "other-qemu"]
    assert (tmp_path / "good").is_dir()


def test_what_a_dead_builder_left_is_swept_and_a_live_ones_is_not(tmp_path: Path) -> None:
    (tmp_path / ".new-dead").mkdir()
    (tmp_path / ".new-live").mkdir()
    (tmp_path / ".gone-x-123").mkdir()
    with (tmp_path / "live.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        collect(tmp_path, keep="x")
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".new-live"]


def test_nothing_is_logged_of_a_sound_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), open_base(make(tmp_path, "a"), TCG) or pytest.fail("none"):
        assert not caplog.records
