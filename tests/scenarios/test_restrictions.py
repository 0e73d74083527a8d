"""Scenarios: capabilities, limits, sysctl, and a read-only root."""

from __future__ import annotations

import pytest

import firkin
from firkin.oci import Image
from tests.limits.test_limits import HOG

pytestmark = pytest.mark.vm
scenario = pytest.mark.scenario

# capabilities(7): the 14 that containers get by default, of config.md's example and Docker.
_DEFAULT = 0xA80425FB
_NET_ADMIN = 1 << 12


def output(box: firkin.Container, *command: str) -> str:
    return str(box.run(command, text=True, check=True).stdout).strip()


def first(box: firkin.Container) -> str:
    """The number, in the container, of the process that sleeps: with an init it is not 1."""
    folder = output(box, "sh", "-c", "grep -lx sleep /proc/[0-9]*/comm")
    return folder.split("/")[2]


def effective(status: str) -> int:
    return int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)


@scenario("container capabilities OCI default")
def test_default_capabilities(plain: firkin.Container) -> None:
    assert effective(output(plain, "cat", "/proc/1/status")) == _DEFAULT
    assert effective(output(plain, "cat", "/proc/self/status")) == _DEFAULT


@scenario("container capabilities all capabilities")
def test_all_capabilities(busybox_image: Image) -> None:
    script = ["cat", "/proc/self/status", "/proc/sys/kernel/cap_last_cap"]
    out = str(firkin.run("busybox", script, cap_add=["ALL"], text=True, check=True).stdout)
    assert effective(out) == (2 << int(out.splitlines()[-1])) - 1


@scenario("container capabilities net admin")
def test_net_admin(plain: firkin.Container, special: firkin.Container) -> None:
    assert effective(output(special, "cat", f"/proc/{first(special)}/status")) == _DEFAULT | _NET_ADMIN
    output(special, "ip", "link", "set", "lo", "mtu", "1400")
    assert "mtu 1400" in output(special, "ip", "link", "show", "lo")
    refused = plain.run(["ip", "link", "set", "lo", "mtu", "1400"], text=True)
    assert (refused.returncode != 0, "not permitted" in str(refused.stderr)) == (True, True)


@scenario("container capabilities sys admin")
def test_sys_admin(plain: firkin.Container, busybox_image: Image) -> None:
    command = ["sh", "-c", "mkdir -p /mnt && mount -t tmpfs new /mnt && grep ' /mnt ' /proc/mounts"]
    assert plain.run(command).returncode != 0
    assert b"new /mnt tmpfs" in firkin.run("busybox", command, cap_add=["SYS_ADMIN"], check=True).stdout  # type: ignore[operator]


@scenario("container cgroup limits")
def test_cgroup_limits(special: firkin.Container) -> None:
    read = output(special, "sh", "-c", "cd /sys/fs/cgroup; cat cpu.max pids.max; nproc; grep MemTotal /proc/meminfo")
    quota, pids, processors, memory = read.splitlines()
    assert (quota, pids, processors) == ("150000 100000", "200", "2")
    assert 400 << 10 < int(memory.split()[1]) <= 512 << 10


@scenario("container default masked and read-only paths")
def test_masked_paths(plain: firkin.Container) -> None:
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list"):
        assert output(plain, "cat", path) == ""
    for folder in ("/proc/acpi", "/sys/firmware"):
        assert output(plain, "ls", folder) == ""
    for file in ("/proc/sys/vm/swappiness", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run"):
        refused = plain.run(["sh", "-c", f"echo 1 > {file}"], text=True)
        assert "Read-only file system" in str(refused.stderr), file


@scenario("container memory events OOM kill")
def test_oom_kill(plain: firkin.Container) -> None:
    before = plain.stats().memory.events.oom_kill
    plain.update(memory="48m")
    try:
        assert plain.run(HOG).status.oom_killed
    finally:
        plain.update(memory=-1)
    events = plain.stats().memory.events
    assert events.oom_kill == before + 1
    assert f"oom_kill {events.oom_kill}" in output(plain, "cat", "/sys/fs/cgroup/memory.events").splitlines()


@scenario("container noNewPrivileges")
def test_no_new_privileges(special: firkin.Container) -> None:
    for process in (first(special), "self"):
        assert "NoNewPrivs:\t1" in output(special, "cat", f"/proc/{process}/status")


@scenario("container noNewPrivileges disabled")
def test_new_privileges(plain: firkin.Container) -> None:
    assert "NoNewPrivs:\t0" in output(plain, "cat", "/proc/1/status")


@scenario("container rlimit exec")
def test_rlimit_of_exec(plain: firkin.Container) -> None:
    command = ["sh", "-c", "ulimit -Sn; ulimit -Hn"]
    assert plain.run(command, rlimits=["nofile=512:640"], text=True).stdout == "512\n640\n"


@scenario("container rlimit open files")
def test_rlimit_of_the_container(special: firkin.Container) -> None:
    for process in (first(special), "self"):
        limits = output(special, "cat", f"/proc/{process}/limits").splitlines()
        (files,) = [line.split() for line in limits if line.startswith("Max open files")]
        assert files[3:5] == ["1024", "2048"]


@scenario("container statistics")
def test_statistics(plain: firkin.Container) -> None:
    before = plain.stats()
    output(plain, "sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done")
    after = plain.stats()
    assert after.id == plain.id
    assert after.processes == 1
    assert after.cpu.usage_usec > before.cpu.usage_usec
    assert 0 < after.memory.current < after.vm.memory_total
    assert after.read_at > before.read_at


@scenario("container sysctl")
def test_sysctl(special: firkin.Container) -> None:
    assert output(special, "cat", "/proc/sys/kernel/msgmax", "/proc/sys/net/ipv4/ip_forward") == "4096\n1"


@scenario("container read-only rootfs")
def test_read_only_root(special: firkin.Container) -> None:
    refused = special.run(["touch", "/written"], text=True)
    assert (refused.returncode, "Read-only file system" in str(refused.stderr)) == (1, True)
    output(special, "touch", "/dev/shm/written")
