"""Limits as the host sees them: what holds QEMU, whatever the guest does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import firkin as library
from firkin.oci import Image
from firkin.types import StateDirs
from firkin.vmm.cgroup import find_places
from tests.cli.conftest import Firkin

pytestmark = pytest.mark.vm
MIB = 1 << 20


def limits_of(pid: int) -> dict[str, str]:
    """The hard limits of a process by name (proc_pid_limits(5))."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return {line[:26].strip(): line[26:].split()[1] for line in lines[1:]}


def test_qemu_is_bounded_from_outside(busybox_image: Image, firkin: Firkin) -> None:
    with library.Container.launch("busybox", ["sleep", "600"], cpus=1.5) as box:
        pid = json.loads(firkin("inspect", box.id).stdout)[0]["qemu_pid"]
        limits = limits_of(pid)
        assert limits["Max core file size"] == "0"
        assert limits["Max open files"] == "1024"
        # The disk's 16 GiB, not the terabyte that the device seems to have.
        assert 16 << 30 < int(limits["Max file size"]) < 17 << 30
        assert os.geteuid() != 0 or int(limits["Max processes"]) < 1024
        places = find_places()
        groups = Path(f"/proc/{pid}/cgroup").read_text()
        name = next((line.rpartition("/")[2] for line in groups.splitlines() if "firkin-" in line), "")
        assert groups.count("firkin-") == len(places)
        for place in places:
            folder = place.folder / name
            if place.version == 1 and "memory" in place.controllers:
                # What the guest and QEMU may ever need, and no more.
                assert 2048 * MIB <= int((folder / "memory.limit_in_bytes").read_text()) < 24 << 30
            if place.version == 1 and "cpu" in place.controllers:
                assert (folder / "cpu.cfs_quota_us").read_text() == "300000\n"
            if "pids" in place.controllers:
                assert 0 < int((folder / "pids.current").read_text()) < int((folder / "pids.max").read_text()) < 1024
    assert not [place for place in places if name and (place.folder / name).exists()]


def test_a_guest_that_writes_behind_its_file_system_does_not_fill_the_hosts_disk(busybox_image: Image) -> None:
    options = {"privileged": True, "disk": "64m"}
    with library.Container.launch("busybox", ["sleep", "600"], **options) as box:  # type: ignore[arg-type]
        box.run(["sh", "-c", "mknod /dev/all b $(sed 's/:/ /' /sys/block/vda/dev)"], check=True)
        result = box.run(
            ["dd", "if=/dev/zero", "of=/dev/all", "bs=1M", "seek=100000", "count=200", "conv=fsync"], text=True
        )
        assert result.returncode != 0
        assert "Input/output error" in str(result.stderr)
        overlay = StateDirs.default().run / "vm" / box.id / "overlay0.qcow2"
        assert 64 * MIB < overlay.stat().st_size <= 130 * MIB
        assert box.run(["echo", "alive"]).stdout == b"alive\n"
