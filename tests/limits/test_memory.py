"""Memory that a guest frees goes back to the host, from a boot and from a clone, whose RAM file stays whole."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import firkin as library
from firkin.oci import Image
from firkin.vmm.ramfile import digest, identity
from tests.cli.conftest import Firkin

MIB = 1 << 20


def anonymous(pid: int) -> int:
    """Bytes that are this process's own (proc_pid_smaps_rollup(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such line")


def ram_file(pid: int) -> Path:
    """The RAM file that this QEMU has mapped."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("/ram"):
            return Path(line.split()[-1])
    raise AssertionError("no RAM file is mapped")


@pytest.mark.vm
@pytest.mark.parametrize("fork", [True, False], ids=["clone", "boot"])
def test_freed_memory_goes_back(busybox_image: Image, firkin: Firkin, fork: bool) -> None:
    with library.Container.launch("busybox", ["sleep", "600"], tmpfs=["/big:size=300m"], fork=fork) as box:
        pid = int(json.loads(firkin("inspect", box.id).stdout)[0]["qemu_pid"])
        if fork:
            file = ram_file(pid)
            with file.open("rb") as ram:
                known = identity(ram.fileno())
        box.run(["true"])
        before = anonymous(pid)
        box.run(["dd", "if=/dev/zero", "of=/big/file", "bs=1M", "count=256"], check=True)
        most = anonymous(pid)
        # Some of it was QEMU's before: what the guest had used and freed.
        assert most - before > 240 * MIB
        box.run(["rm", "/big/file"], check=True)
        freed, back = time.monotonic(), 0.0
        while back < 90 and time.monotonic() < freed + 30:
            time.sleep(0.1)
            back = 100 * (most - anonymous(pid)) / (256 * MIB)
        assert back >= 90
        # What was given back can be used again, and holds what is written.
        copies = "head -c 4m /dev/urandom > /big/seed; for n in $(seq 40); do cat /big/seed; done > /big/file; "
        compare = "for n in 0 20 39; do dd if=/big/file bs=4M skip=$n count=1 2>/dev/null | cmp - /big/seed; done"
        assert box.run(["sh", "-ec", copies + compare], text=True).returncode == 0
    if fork:
        manifest = json.loads((file.parent / "manifest.json").read_text())
        with file.open("rb") as ram:
            assert identity(ram.fileno()) == known
            assert digest(ram.fileno()) == manifest["ram"]
        assert library.run("busybox", ["echo", "again"]).stdout == b"again\n"
