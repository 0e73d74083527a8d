"""What a container does to itself, it does to itself: it is told so, the host goes on, and both can see it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import firkin as library
from firkin.core.stats import host_cost
from firkin.oci import Image
from tests.cli.conftest import FIRKIN

pytestmark = pytest.mark.vm
MIB = 1 << 20


@pytest.fixture(scope="module")
def box(busybox_image: Image) -> Iterator[library.Container]:
    with library.Container.launch(
        "busybox", ["sleep", "600"], cpus=0.5, disk="64m", tmpfs=["/small:size=4m"], use_init=True
    ) as container:
        yield container


def qemu_of(box: library.Container) -> int:
    return box.stats().host.pid


def test_a_cpu_hog_gets_its_share_and_the_host_the_rest(box: library.Container) -> None:
    hogs = [box.exec(["sh", "-c", "while :; do :; done"]) for _ in range(3)]
    pid, before = qemu_of(box), box.stats()
    began = time.monotonic()
    time.sleep(4)
    used, passed = host_cost(pid).cpu_usec - before.host.cpu_usec, time.monotonic() - began
    after = box.stats()
    # Half of one processor, from inside; from outside with what emulating it costs, which is not a whole one.
    assert 0.2 < (after.cpu.usage_usec - before.cpu.usage_usec) / 1e6 / passed < 0.6
    assert used / 1e6 / passed < 0.95
    assert after.cpu.throttled_periods > before.cpu.throttled_periods
    # The agent, which is outside of the quota, answers.
    for hog in hogs:
        hog.kill()
        assert hog.wait(timeout=60).signal == 9


@pytest.mark.parametrize("path", ["/filling", "/small/filling"], ids=["disk", "tmpfs"])
def test_a_full_disk_is_the_containers_own_error(box: library.Container, path: str) -> None:
    full = box.run(["dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=100"], text=True)
    assert full.returncode == 1
    assert "No space left on device" in str(full.stderr)
    assert box.run(["rm", path]).returncode == 0
    assert box.run(["sh", "-c", f"echo again > {path}; cat {path}; rm {path}"]).stdout == b"again\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs for the VM's folder")
def test_a_full_disk_of_the_host_is_an_error_inside(home: Path, tmp_path: Path, busybox_image: Image) -> None:
    small = tmp_path / "home"
    (small / "run").mkdir(parents=True)
    for name in ("data", "cache"):
        (small / name).symlink_to(home / name)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", small / "run"], check=True)
    try:
        script = "dd if=/dev/urandom of=/file bs=1M count=64 conv=fsync; echo code $?"
        done = subprocess.run(
            [*FIRKIN, "run", "busybox", "sh", "-c", script], env=os.environ | {"FIRKIN_HOME": str(small)},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "Input/output error" in done.stderr
        assert (done.returncode, done.stdout) == (0, "code 1\n")
        assert list((small / "run/vm").iterdir()) == []
    finally:
        subprocess.run(["umount", small / "run"], check=True)


def test_a_flood_of_output_costs_the_owner_no_memory(busybox_image: Image) -> None:
    script = "dd if=/dev/zero bs=64k count=320 2>/dev/null"
    owner = subprocess.Popen([*FIRKIN, "run", "busybox", "sh", "-c", script], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    # A reader that is slower than the container for a while.
    first = owner.stdout.read(1)
    time.sleep(1)
    peak = next(line for line in Path(f"/proc/{owner.pid}/status").read_text().splitlines() if "VmHWM" in line)
    rest = sum(len(chunk) for chunk in iter(lambda: owner.stdout.read(1 << 16), b""))  # type: ignore[union-attr]
    assert owner.wait(timeout=60) == 0
    assert len(first) + rest == 320 << 16
    assert int(peak.split()[1]) * 1024 < 120 * MIB


def test_a_fork_bomb_without_a_limit_stays_in_its_vm_and_is_ended(busybox_image: Image) -> None:
    bomb = ["sh", "-c", "b() { b | b & }; b; exec sleep 600"]
    with library.Container.launch("busybox", bomb) as box:
        deadline = time.monotonic() + 60
        while (stats := box.stats()).tasks < 500:
            assert time.monotonic() < deadline, stats
            time.sleep(0.2)
        # All of it is one process here, whose threads do not grow with the guest's.
        assert len(list(Path(f"/proc/{qemu_of(box)}/task").iterdir())) < 32
        box.update(pids_limit=20)
        assert box.stats().tasks_limit == 20
        assert box.stop(grace=0.5).signal == 9
