"""Volumes, images and disk images mounted in real VMs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import firkin
from firkin import Volume
from firkin.errors import StateError
from firkin.ext4 import ImageReader, make_empty, needs_recovery
from firkin.oci import Image

pytestmark = pytest.mark.vm
# The volumes of all workers are in one folder.
NAME = f"vm-test-{os.getpid()}"


def sh(script: str, *mounts: str, **options: object) -> str:
    """What `script` says in a container of its own."""
    done = firkin.run("busybox", ["sh", "-c", f"exec 2>&1; {script}"], text=True, mounts=mounts, **options)  # type: ignore[arg-type]
    return str(done.stdout)


@pytest.fixture
def volume(busybox_image: Image) -> Iterator[Volume]:
    made = Volume.create(NAME, size="64m")
    yield made
    made.remove()


def test_a_volume_outlives_its_containers(volume: Volume) -> None:
    assert sh("echo kept > /v/file; mkdir /v/sub; df -m /v | tail -1 | awk '{print $2 < 64}'", f"{NAME}:/v") == "1\n"
    assert not volume.in_use
    # The VM ended as by a power cut: a reader repairs what it sees, and not what is on the disk.
    torn = needs_recovery(volume.path)
    before = volume.path.read_bytes()
    said = sh("cat /v/file; echo no > /v/no; mount -o remount,rw /v; ls /v", f"{NAME}:/v:ro", privileged=True)
    assert said.startswith("kept\nsh: can't create /v/no: Read-only file system\n")
    assert volume.path.read_bytes() == before
    assert torn
    assert sh("cat /v/file /w/file; ls /w", f"{NAME}:/v:ro", f"{NAME}:/w") == "kept\nkept\nfile\nsub\n"


def test_one_container_writes_or_many_read(volume: Volume) -> None:
    with firkin.Container.launch("busybox", ["sleep", "600"], mounts=[f"{NAME}:/v"]):
        assert volume.in_use
        for mode in ("", ":ro"):
            with pytest.raises(StateError, match=f"the volume {NAME} is in use by another container"):
                sh("true", f"{NAME}:/v{mode}")
    with firkin.Container.launch("busybox", ["sleep", "600"], mounts=[f"{NAME}:/v:ro"]) as first:
        assert sh("ls -a /v", f"{NAME}:/v:ro") == str(first.run(["ls", "-a", "/v"], text=True).stdout)


def test_a_volume_starts_with_what_the_image_has_there(volume: Volume) -> None:
    look = "ls /etc; stat -c %a,%u /etc/passwd; cat /etc/passwd"
    has = sh(look)
    assert "passwd" in has
    assert sh(f"{look}; rm /etc/passwd; echo new > /etc/new", f"{NAME}:/etc") == has
    # Something is in it by now: nothing is copied again.
    assert sh("cat /etc/new; cat /etc/passwd", f"{NAME}:/etc").startswith("new\ncat: can't open '/etc/passwd'")


def test_an_anonymous_volume_goes_with_its_container(home: Path, busybox_image: Image) -> None:
    with firkin.Container.launch("busybox", ["sleep", "600"], mounts=["/one", "/two"]) as container:
        assert container.run(["sh", "-c", "echo a > /one/a; ls /two; grep -c ext4 /proc/mounts"]).stdout == b"3\n"
        assert len(list((home / "run" / "vm" / container.id).glob("volume-*.ext4"))) == 2
    assert list((home / "run" / "vm").glob("*/volume-*")) == []


def test_an_image_is_mounted_read_only(debian_image: Image, busybox_image: Image) -> None:
    said = sh("cat /img/etc/debian_version; touch /img/no", "type=image,source=debian,destination=/img")
    assert said.startswith("12")
    assert "Read-only file system" in said


def test_a_disk_image_is_mounted_and_held_by_one_writer(busybox_image: Image, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    make_empty(disk, 16 << 20)
    mount = f"type=block,source={disk},destination=/d"
    assert sh("echo written > /d/file; cat /d/file", mount) == "written\n"
    with firkin.Container.launch("busybox", ["sleep", "600"], mounts=[mount]) as container:
        assert container.run(["cat", "/d/file"]).stdout == b"written\n"
        for mode in ("", ",readonly"):
            with pytest.raises(StateError, match=r"the disk .*disk.img is in use by another VM"):
                sh("true", f"{mount}{mode}")
    assert "Read-only" in sh("echo no > /d/no; cat /d/file", f"{mount},readonly")
    assert disk.stat().st_size == 16 << 20


def test_what_was_written_is_there_after_the_owner_was_killed(volume: Volume) -> None:
    script = "echo synced > /v/synced; sync; echo said; sleep 600"
    command = [sys.executable, "-c", "from firkin.cli import main; main()", "run", "-v", f"{NAME}:/v", "busybox"]
    owner = subprocess.Popen([*command, "sh", "-c", script], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"said\n"
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert sh("cat /v/synced", f"{NAME}:/v:ro") == "synced\n"
    assert sh("cat /v/synced", f"{NAME}:/v") == "synced\n"
    with ImageReader(volume.path) as reader:
        assert reader is not None
