"""Kinds of root filesystem, and staging them: the counterparts of the seed's staging tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from firkin.errors import ImageError, InvalidInputError
from firkin.oci import ImageStore
from firkin.oci.rootfs import Rootfs, snapshot_rootfs, stage_file, stage_restored_rootfs_to, stage_rootfs_to
from firkin.types.state import StateDirs
from tests.oci.builders import Layout


def test_an_oci_bundle_is_staged_to_an_ext4_image(dirs: StateDirs, tmp_path: Path) -> None:
    layout = Layout()
    layout.name("localhost/hello:1", layout.image({"bin/hello": b"hello\n"}))
    store = ImageStore(dirs)
    (image,) = store.load(layout.write(tmp_path / "layout"))
    destination = tmp_path / "rootfs.ext4"
    staged = stage_rootfs_to(Rootfs.oci_bundle(image, 64 << 20), destination, store=store)
    assert (staged.path, staged.bytes) == (destination, 64 << 20)
    shown = subprocess.run(["debugfs", "-R", "cat /bin/hello", destination], capture_output=True, text=True)
    assert shown.stdout == "hello\n"
    assert subprocess.run(["e2fsck", "-fn", destination], capture_output=True).returncode == 0


def test_a_restored_rootfs_reports_method_and_bytes(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "rootfs.ext4"
    source.write_bytes(b"restored root")
    report = stage_file(source, destination)
    assert destination.read_bytes() == b"restored root"
    assert report.bytes == 13
    assert report.seconds >= 0
    cloned = subprocess.run(["cp", "--reflink=always", source, tmp_path / "clone"], capture_output=True).returncode == 0
    assert report.method == ("clone" if cloned else "copy")


def test_a_restored_rootfs_is_the_snapshots_own(store: ImageStore, tmp_path: Path) -> None:
    kept = snapshot_rootfs(tmp_path, "worker")
    kept.write_bytes(b"as it was")
    report = stage_restored_rootfs_to(tmp_path, "worker", tmp_path / "restored.ext4")
    assert report.path.read_bytes() == b"as it was"
    with pytest.raises(ImageError, match="can't stage the root filesystem other-rootfs"):
        stage_restored_rootfs_to(tmp_path, "other", tmp_path / "restored.ext4")


@pytest.mark.parametrize("make", [Rootfs.ext4_image, Rootfs.raw_block])
def test_files_are_staged_with_their_holes(store: ImageStore, tmp_path: Path, make: object) -> None:
    source = tmp_path / "disk"
    with source.open("wb") as file:
        file.write(b"start")
        file.seek(64 << 20)
        file.write(b"middle")
        file.truncate(128 << 20)
    report = stage_rootfs_to(make(source), tmp_path / "staged", store=store)  # type: ignore[operator]
    assert (tmp_path / "staged").read_bytes() == source.read_bytes()
    assert report.bytes == 128 << 20
    assert report.path.stat().st_blocks * 512 < 1 << 20
    os.truncate(report.path, 0)
    assert source.stat().st_size == 128 << 20
    with pytest.raises(InvalidInputError, match="no root filesystem at"):
        make(tmp_path / "absent")  # type: ignore[operator]


def test_a_failed_staging_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        stage_file(tmp_path / "absent", tmp_path / "to")
    assert list(tmp_path.iterdir()) == []
