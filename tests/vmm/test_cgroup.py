"""Control groups of the host: found in every layout, made for real here, and removed by whoever is left."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.types.state import StateDirs
from firkin.vmm.bounds import group_bounds, process_limits
from firkin.vmm.cgroup import Bounds, Cage, Place, find_places, remove_recorded
from firkin.vmm.config import MIB, VmConfig
from firkin.vmm.folder import VmFolder, reclaim
from firkin.vmm.spawn import spawn

BOUNDS = Bounds(64 * MIB, 2, 20)


def fake_host(tmp_path: Path, mountinfo: list[str], own: list[str], files: dict[str, str]) -> Path:
    """A /proc/self whose mounts are folders below `tmp_path`."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "mountinfo").write_text("".join(f"1 0 0:1 {line}\n" for line in mountinfo))
    (proc / "cgroup").write_text("".join(f"{line}\n" for line in own))
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return proc


def test_version_1_each_controller_below_our_own_group(tmp_path: Path) -> None:
    mounts = [
        f"/ {tmp_path}/memory rw - cgroup cgroup rw,memory",
        f"/docker/abc {tmp_path}/cpu rw shared:1 - cgroup cgroup rw,cpu,cpuacct",
        f"/ {tmp_path}/unified rw - cgroup2 cgroup2 rw",
    ]
    own = ["9:name=systemd:/", "4:memory:/job", "3:cpu,cpuacct:/docker/abc/sub", "2:pids:/", "0::/"]
    proc = fake_host(tmp_path, mounts, own, {"memory/job/tasks": "", "cpu/sub/tasks": ""})
    assert find_places(proc) == (
        Place(1, tmp_path / "memory/job", ("memory",)),
        Place(1, tmp_path / "cpu/sub", ("cpu",)),
    )


def test_version_2_delegated_to_a_user(tmp_path: Path) -> None:
    user = "user.slice/user-1000.slice/user@1000.service/app.slice"
    proc = fake_host(
        tmp_path,
        [f"/ {tmp_path}/v2 rw - cgroup2 cgroup2 rw,nsdelegate"],
        [f"0::/{user}/run-7.scope"],
        {
            f"v2/{user}/run-7.scope/cgroup.procs": "",
            f"v2/{user}/cgroup.subtree_control": "memory pids\n",
            f"v2/{user}/cgroup.procs": "",
        },
    )
    assert find_places(proc) == (Place(2, tmp_path / "v2" / user, ("memory", "pids")),)


@pytest.mark.parametrize(
    ("own", "handed"),
    [("0::/session-1.scope", ""), ("0::/", "memory cpu pids"), ("0::/../outside", "memory")],
    ids=["nothing handed on", "the root of a namespace", "outside of it"],
)
def test_version_2_not_delegated(tmp_path: Path, own: str, handed: str) -> None:
    files = {"v2/cgroup.subtree_control": handed, "v2/session-1.scope/cgroup.procs": ""}
    proc = fake_host(tmp_path, [f"/ {tmp_path}/v2 rw - cgroup2 cgroup2 rw"], [own], files)
    assert find_places(proc) == ()


def test_a_host_without_any(tmp_path: Path) -> None:
    assert find_places(tmp_path / "nowhere") == ()
    proc = fake_host(tmp_path, ["/ / rw - ext4 /dev/vda rw"], [], {})
    assert find_places(proc) == ()
    cage = Cage(tmp_path, [])
    with cage.entered():
        cage.bound(BOUNDS)
        cage.admit(1)
    cage.remove()
    assert (cage.groups, remove_recorded(tmp_path)) == ([], True)


def test_what_is_written_in_version_2(tmp_path: Path) -> None:
    cage = Cage(tmp_path, [Place(2, tmp_path, ("memory", "cpu", "pids"))])
    cage.bound(BOUNDS)
    (group,) = cage.groups
    written = {path.name: path.read_text() for path in group.iterdir()}
    assert written == {"memory.max": str(64 * MIB), "cpu.max": "200000 100000", "pids.max": "20"}
    cage.admit(77)
    assert (group / "cgroup.procs").read_text() == "77"


@pytest.fixture
def folder(tmp_path: Path) -> VmFolder:
    return VmFolder.claim(StateDirs.under(tmp_path / "home"), "caged")


def groups_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def real_places() -> tuple[Place, ...]:
    if not (places := find_places()):
        pytest.skip("this host permits no control groups (see `firkin doctor`)")
    return places


def test_a_child_is_inside_before_it_runs_and_nothing_is_left(folder: VmFolder) -> None:
    real_places()
    with folder:
        folder.cage.bound(BOUNDS)
        groups = folder.cage.groups
        assert groups
        ours = Path("/proc/thread-self/cgroup").read_text()
        reader, writer = os.pipe()
        child = spawn(["cat", "/proc/self/cgroup"], cage=folder.cage, stderr=writer, fds=[])
        os.close(reader)
        os.close(writer)
        child.wait()
        sleeper = spawn(["sleep", "600"], cage=folder.cage, stderr=subprocess.DEVNULL)
        assert groups_of(sleeper.pid).count(groups[0].name) == len(groups)
        # Neither this process nor the thread that spawns stays inside.
        assert Path("/proc/thread-self/cgroup").read_text() == ours
        for task in Path("/proc/self/task").iterdir():
            assert groups[0].name not in (task / "cgroup").read_text()
        sleeper.kill()
        sleeper.wait()
    assert not any(group.exists() for group in groups)


def test_more_memory_than_the_bound_is_not_to_be_had(folder: VmFolder) -> None:
    if not any("memory" in place.controllers for place in real_places()):
        pytest.skip("no memory controller")
    with folder:
        folder.cage.bound(BOUNDS)
        hog = [sys.executable, "-c", "b = bytearray(1 << 28); print(len(b))"]
        assert spawn(hog, cage=folder.cage, stderr=subprocess.DEVNULL).wait() == -signal.SIGKILL
        assert spawn(hog, stderr=subprocess.DEVNULL).wait() == 0


def test_no_more_tasks_than_the_bound(folder: VmFolder) -> None:
    if not any("pids" in place.controllers for place in real_places()):
        pytest.skip("no pids controller")
    with folder:
        folder.cage.bound(BOUNDS)
        bomb = spawn(["sh", "-c", "i=0; while [ $i -lt 40 ]; do sleep 60 & i=$((i+1)); done"],
                     cage=folder.cage, stderr=subprocess.DEVNULL)  # fmt: skip
        assert bomb.wait() != 0
        for group in folder.cage.groups:
            for pid in (group / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)


def test_version_2_for_real(folder: VmFolder) -> None:
    top = next((Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()
                if line.split()[2] == "cgroup2"), None)  # fmt: skip
    if top is None or not os.access(top, os.W_OK):
        pytest.skip("no cgroup2 that this user may write to")
    cage = Cage(folder.path, [Place(2, top, ())])
    with folder:
        child = spawn(["sleep", "600"], cage=cage, stderr=subprocess.DEVNULL)
        (group,) = cage.groups
        assert (group / "cgroup.procs").read_text() == f"{child.pid}\n"
        child.kill()
        child.wait()
        cage.remove()
    assert not group.exists()


KILLED = """if True:
    import subprocess, sys, os, time
    from pathlib import Path
    from firkin.types.state import StateDirs
    from firkin.vmm.folder import VmFolder
    from firkin.vmm.spawn import spawn
    folder = VmFolder.claim(StateDirs.under(Path(sys.argv[1])), "theirs")
    spawn(["sleep", "600"], cage=folder.cage, stderr=subprocess.DEVNULL)
    print(*folder.cage.groups, flush=True)
    if sys.argv[2] == "remove":
        folder.remove()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("point", ["", "cgroup.made"])
def test_whoever_finds_the_owner_dead_removes_its_groups(tmp_path: Path, point: str) -> None:
    places = real_places()
    environ = os.environ | ({"FIRKIN_FAULT": f"{point}=kill"} if point else {})
    owner = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "die"], env=environ, capture_output=True)
    assert owner.returncode == -signal.SIGKILL, owner.stderr
    record = tmp_path / "run/vm/theirs/cgroups"
    groups = list(map(Path, record.read_text().split()))
    assert len(groups) == len(places)
    assert all(group.exists() for group in groups)
    assert reclaim(StateDirs.under(tmp_path)) == ["theirs"]
    assert not any(group.exists() for group in groups)


def test_a_record_names_only_groups_of_its_own_vm(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    vm = tmp_path / "vm"
    vm.mkdir()
    (vm / "cgroups").write_text(f"{other}\n/\n")
    assert remove_recorded(vm)
    assert other.is_dir()


def test_a_file_that_meets_its_limit_is_an_error_and_no_end(tmp_path: Path) -> None:
    script = f"dd if=/dev/zero of={tmp_path}/file bs=1M count=4; echo code $? >&2; ulimit -n >&2; ulimit -c >&2"
    with (tmp_path / "said").open("wb") as said:
        limits = {resource.RLIMIT_FSIZE: 2 * MIB, resource.RLIMIT_NOFILE: 99}
        child = spawn(["sh", "-c", script], limits=limits, stderr=said)
    assert child.wait() == 0
    text = (tmp_path / "said").read_text()
    assert "File too large" in text
    assert text.splitlines()[-3:] == ["code 1", "99", "0"]
    assert (tmp_path / "file").stat().st_size == 2 * MIB


def test_bounds_of_a_vm(tmp_path: Path) -> None:
    config = VmConfig(cpus=3, memory=512 * MIB)
    bounds = group_bounds(config, tmp_path, [])
    assert (bounds.cpus, bounds.tasks) == (4, 515)
    assert bounds.memory == 2048 * MIB
    # What lies on a tmpfs is memory.
    shared = group_bounds(config, Path("/dev/shm"), [1 << 34])
    assert shared.memory > bounds.memory + (1 << 34)
    limits = process_limits(config, [1 << 34], alone=True)
    assert (1 << 34) < limits[resource.RLIMIT_FSIZE] < (1 << 34) * 1.01
    assert resource.RLIMIT_NPROC not in process_limits(config, [], alone=False)
