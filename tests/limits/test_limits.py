"""Limits and counters of containers in real VMs, from inside, from the API and from another process."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import firkin as library
from firkin.core.limits import Limits
from firkin.errors import InvalidInputError
from firkin.oci import Image
from tests.cli.conftest import Firkin

vm = pytest.mark.vm

# The process that sleeps, below the init.
FIRST = "first=$(dirname $(grep -lx sleep /proc/[0-9]*/comm)); "

# Doubles a string until nothing is left.
HOG = ["awk", 'BEGIN { s = sprintf("%1000000s", ""); while (1) s = s s }']


@pytest.fixture(scope="module")
def box(busybox_image: Image) -> Iterator[library.Container]:
    # A fraction of the two processors of the VM that other tests use too: so it is a fork of the same base.
    # An init reaps what the fork bomb leaves.
    with library.Container.launch(
        "busybox", ["sleep", "600"], cpus=1.5, pids_limit=40, oom_score_adj=100, use_init=True
    ) as container:
        yield container


def cgroup(box: library.Container, name: str) -> str:
    return str(box.run(["cat", f"/sys/fs/cgroup/{name}"], text=True, check=True).stdout).strip()


@vm
def test_options_become_limits(box: library.Container) -> None:
    assert cgroup(box, "cpu.max") == "150000 100000"
    assert cgroup(box, "pids.max") == "40"
    assert box.run(["sh", "-c", FIRST + "cat $first/oom_score_adj"], text=True).stdout == "100\n"
    assert box.run(["nproc"], text=True).stdout == "2\n"


@vm
def test_stats_count_what_is_used(box: library.Container) -> None:
    before = box.stats()
    assert (before.processes, before.tasks, before.tasks_limit) == (2, 2, 40)
    script = "dd if=/dev/zero of=/written bs=1M count=8 conv=fsync; dd if=/dev/zero of=/dev/shm/kept bs=1M count=16"
    box.run(["sh", "-c", script], check=True)
    after = box.stats()
    assert after.block.written_bytes - before.block.written_bytes >= 8 << 20
    assert after.memory.current - before.memory.current >= 16 << 20
    assert after.memory.peak >= after.memory.current >= after.memory.working_set
    assert after.cpu.usage_usec > before.cpu.usage_usec
    assert after.cpu.periods > before.cpu.periods
    assert after.vm.memory_available < after.vm.memory_total <= 512 << 20
    # The host sees at least what the guest holds, and works for longer than the guest does.
    assert after.host.pss is not None
    assert after.host.pss > 16 << 20
    assert after.host.cpu_usec > after.cpu.usage_usec - before.cpu.usage_usec
    box.run(["rm", "/dev/shm/kept", "/written"], check=True)


@vm
def test_a_process_that_takes_too_much_memory_is_killed_and_its_container_goes_on(box: library.Container) -> None:
    box.update(memory="64m")
    assert box.stats().memory.limit == 64 << 20
    before = box.stats().memory.events.oom_kill
    status = box.run(HOG).status
    assert (status.signal, status.oom_killed, str(status)) == (9, True, "killed for memory (OOM)")
    assert box.stats().memory.events.oom_kill == before + 1
    # In a tree it is the child that is killed, and its parent that says so.
    result = box.run(["sh", "-c", '"$@"; echo $?', "sh", *HOG], text=True)
    assert (str(result.stdout).splitlines()[-1], result.status.code, result.status.oom_killed) == ("137", 0, False)
    assert box.stats().memory.events.oom_kill == before + 2
    box.update(memory=-1)
    assert cgroup(box, "memory.max") == "max"
    assert box.run(["true"]).returncode == 0


@vm
def test_no_more_processes_than_allowed(box: library.Container) -> None:
    bomb = box.run(["sh", "-c", "while sleep 601 & do :; done"], text=True)
    assert bomb.returncode != 0
    assert "can't fork" in str(bomb.stderr)
    assert 30 <= box.stats().tasks <= 40
    # The VM answers, and whoever owns the container can make room.
    box.update(pids_limit=60)
    assert box.stats().tasks_limit == 60
    kill = "pids=$(grep -l 601 /proc/[0-9]*/cmdline | cut -d/ -f3 | grep -vx $$); kill $pids; "
    box.run(["sh", "-c", kill + "for p in $pids; do while [ -e /proc/$p ]; do sleep 0.05; done; done"], timeout=60)
    box.update(pids_limit=40)
    assert box.stats().tasks == 2


@vm
def test_stats_and_update_from_another_process(box: library.Container, firkin: Firkin) -> None:
    assert firkin("update", "--cpus", "-1", "--memory-high", "100m", box.id).stdout == f"{box.id}\n"
    assert (cgroup(box, "cpu.max"), cgroup(box, "memory.high")) == ("max 100000", str(100 << 20))
    refused = firkin("update", "--cpus", "3", box.id)
    assert (refused.returncode, refused.stderr.count("\n")) == (125, 1)
    assert "the VM has 2 processors" in refused.stderr
    (document,) = json.loads(firkin("stats", "--no-stream", "--format", "json", box.id).stdout)
    assert document["id"] == box.id
    assert document["host"]["pid"] > 0
    heading, row = firkin("stats", "--no-stream", "--interval", "0.2", box.id).stdout.splitlines()
    assert heading.startswith("NAME")
    assert row.startswith(box.id)
    box.update(cpus=1.5, memory_high=-1)
    assert cgroup(box, "cpu.max") == "150000 100000"


@vm
def test_a_disk_is_no_faster_than_allowed(box: library.Container) -> None:
    script = ["sh", "-c", "dd if=/dev/zero of=/written bs=64k count=32 conv=fsync; rm /written"]
    box.update(write_bps="1m", read_bps="100m")
    try:
        assert "rbps=104857600 wbps=1048576" in cgroup(box, "io.max")
        began = time.monotonic()
        box.run(script, check=True)
        # 2 MiB, of which the kernel lets some go first.
        assert time.monotonic() - began > 0.9
    finally:
        box.update(write_bps=-1, read_bps=-1)
    assert cgroup(box, "io.max") == ""


@vm
@pytest.mark.parametrize("how", [(), ("--warm",), ("--no-fork",), ("--writable-layer",)])
def test_the_first_process_finds_its_disk_throttled(firkin: Firkin, tmp_path: Path, how: tuple[str, ...]) -> None:
    if how == ("--writable-layer",):
        how = (*how, str(tmp_path / "layer"))
        with (tmp_path / "layer").open("wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", tmp_path / "layer"], check=True)
    flags = ("--device-read-bps", "/dev/sda:50m", "--device-write-bps", "1m", "--write-iops", "500")
    # The time is the guest's own, of the write alone: 3 MiB, of which the kernel lets some go first.
    script = "read up _ </proc/uptime; dd if=/dev/zero of=/written bs=64k count=48 conv=fsync 2>&1 || exit"
    script += "; read down _ </proc/uptime; echo $up $down; grep -r . /sys/fs/cgroup/io.max"
    ended = firkin("run", "--rm", *how, *flags, "busybox", "sh", "-c", script)
    assert (ended.returncode, ended.stderr) == (0, "")
    *_, times, limits = ended.stdout.splitlines()
    began, finished = map(float, times.split())
    assert finished - began > 1.5
    assert limits.endswith(" rbps=52428800 wbps=1048576 riops=max wiops=500")


@vm
def test_a_first_process_that_takes_the_whole_vm_is_killed_for_memory(busybox_image: Image) -> None:
    # Booted: a base VM of this size would be made for this test alone.
    status = library.run("busybox", HOG, memory="128m", fork=False, timeout=120).status
    assert (status.signal, status.oom_killed) == (9, True)


@pytest.mark.parametrize(
    "wrong", [{"pids_limit": 0}, {"cpus": 0}, {"cpus": math.nan}, {"cpus": -2}, {"memory": 0}, {"memory": "5m"},
              {"memory": "x"}, {"memory_high": -5}, {"read_iops": 0}, {"write_iops": -2}]
)  # fmt: skip
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        Limits.of(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "[]", "1", '{"pids": "x"}', '{"cpus": {}}', '{"memory": []}'])
def test_malformed_limits_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Limits.from_json(text)


def test_limits_become_files() -> None:
    limits = Limits.of(pids_limit=-1, cpus=1.5, memory="1g", memory_high=4096)
    files = {"cpu.max": "150000 100000", "memory.high": "4096", "memory.max": str(1 << 30), "pids.max": "max"}
    assert limits.cgroup_files(vcpus=2) == files
    assert Limits.from_json(limits.to_json()) == limits
    rates = Limits.of(read_bps=-1, write_bps="1m", read_iops=9, write_iops=-1)
    assert rates.cgroup_files(vcpus=2, disk="254:0") == {"io.max": "254:0 rbps=max wbps=1048576 riops=9 wiops=max"}
    assert Limits.from_json(rates.to_json()) == rates
    with pytest.raises(InvalidInputError, match="no limit"):
        Limits.of().cgroup_files(vcpus=2)
