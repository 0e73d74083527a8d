"""A container that a base VM held parked is to its program what one made from the start is."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

import firkin
from firkin import AsyncContainer, Stdio
from firkin.core.capture import Captured
from firkin.errors import AgentError, ExecError
from firkin.oci import Image

pytestmark = pytest.mark.vm

# Ids of mounts and their parents, device numbers of file systems, and the order in which they were made differ.
_SEEN = r"""
cut -d' ' -f4- /proc/self/mountinfo | sort
grep -v -e ctxt -e '^Vm' -e '^Rss' -e '^SigQ' /proc/self/status
cat /proc/self/limits /proc/self/cgroup /etc/hosts
cat /proc/1/oom_score_adj /proc/self/timens_offsets
for number in 0 1 2; do readlink /proc/1/fd/$number; grep flags /proc/1/fdinfo/$number; done
stat -c '%n %A %u %g %t %T' /dev/* /dev/pts/* /sys/fs/cgroup /proc/sys / /run /tmp
ls -a / /dev /proc/acpi /sys/firmware /run
cat /proc/kcore | wc -c
hostname; id; pwd; env; umask; ps -o pid,ppid,user,comm
cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cgroup.controllers
for place in /proc/sys/kernel/msgmax /proc/sysrq-trigger /sys/kernel/mm/ksm/run /new; do echo 1 >$place; done
for kind in /proc/self/ns/*; do echo $kind; done
"""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"user": "1000:100", "read_only": True, "hostname": "h", "use_init": True, "no_new_privileges": True},
        {"terminal": True, "working_dir": "/a/b", "oom_score_adj": 10},
        {"seccomp": "unconfined", "cap_add": ["SYS_ADMIN"], "rlimits": ["nofile=99"]},
    ],
)
async def test_its_program_sees_the_same(busybox_image: Image, options: dict[str, Any]) -> None:
    # Where the kernel boots nothing is parked.
    assert await _see("+parked", **options) == await _see("c", fork=False, **options)


async def _see(cgroup: str, **options: Any) -> list[str]:
    """A line for each fact, so that a failure shows the one that differs."""
    streams = {"stdout": Stdio.PIPED, "stderr": Stdio.PIPED, **options}
    async with await AsyncContainer.launch("busybox", ["sh", "-c", _SEEN], name="c", **streams) as container:
        result = await container.process.communicate(None, limit=1 << 20)
        groups = await container.vm.agent.stat(f"/sys/fs/cgroup/firkin/{cgroup}")
        assert groups.mode & 0o40000, "it is in another control group"
    return [re.sub(r"\[\d+\]", "[]", line) for part in result for line in _lines(part)]


def _lines(part: object) -> list[str]:
    return part.data.decode().splitlines() if isinstance(part, Captured) else [str(part)]


def test_each_is_frozen_killed_and_counted_as_one_of_its_own(busybox_image: Image) -> None:
    with firkin.Container.launch("busybox", ["sleep", "600"]) as container:
        assert container.stats().processes == 1
        assert container.run(["cat", "/proc/self/cgroup"], text=True).stdout == "0::/\n"
        container.update(pids_limit=60)
        assert container.run(["cat", "/sys/fs/cgroup/pids.max"], text=True).stdout == "60\n"
        assert container.stop(grace=0).signal == 9


def test_a_program_that_is_not_there_is_told_and_leaves_nothing(busybox_image: Image) -> None:
    with pytest.raises(ExecError) as caught:
        firkin.run("busybox", ["/no/such"])
    assert caught.value.exit_code == 127


async def test_a_pilot_goes_ahead_and_waits_where_it_has_come_to(busybox_image: Image) -> None:
    async with await AsyncContainer.launch("busybox", ["sleep", "600"], cpus=2) as container:
        assert (await container.vm.agent.stat("/sys/fs/cgroup/firkin/+pilot")).mode & 0o40000
        # What was parked has become the container: the one that is left is the pilot.
        assert (await _programs(container)).count("/bin/pilot") == 1
        assert (await container.stats()).processes == 1
        # The agent's children may use both processors.
        seen = await container.run(["grep", "Cpus_allowed_list", "/proc/self/status"], text=True)
        assert seen.stdout.split() == ["Cpus_allowed_list:", "0-1"]


async def test_another_pilot_takes_its_place_before_the_next_save(busybox_image: Image) -> None:
    await firkin.warm_image_async("busybox", cpus=2)
    async with await AsyncContainer.launch("busybox", ["sleep", "600"], cpus=2, warm=True) as container:
        assert (await _programs(container)).count("/bin/pilot") == 1


async def test_a_root_is_for_what_is_parked(busybox_image: Image) -> None:
    async with await AsyncContainer.launch("busybox", ["sleep", "600"]) as container:
        with pytest.raises(AgentError, match="no container without a root is parked"):
            await container.vm.agent.park_root(str(container.guest_id), b'{"mounts":[]}')
        await container.vm.agent.park(container.vm.config.parked)
        with pytest.raises(AgentError, match="No such file"):
            await container.vm.agent.park_root("nobody", b'{"mounts":[]}')
        with pytest.raises(AgentError, match="park"):
            await container.vm.agent.park_root(str(container.guest_id), b'{"mounts":[{"destination":"/x"}]}')


async def _programs(container: AsyncContainer) -> list[str]:
    """What the processes of the VM that were there before the container's first one, and some later ones, run."""
    links = [f"/proc/{pid}/exe" for pid in range(2, container.process.pid + 20)]
    found = await asyncio.gather(*map(container.vm.agent.stat, links), return_exceptions=True)
    return [state.link_target for state in found if not isinstance(state, BaseException)]


async def test_without_a_second_processor_there_is_no_pilot(busybox_image: Image) -> None:
    async with await AsyncContainer.launch("busybox", ["sleep", "600"], cpus=1, privileged=True) as container:
        with pytest.raises(AgentError):
            await container.vm.agent.stat("/sys/fs/cgroup/firkin/+pilot")
        # One that waits would be seen: the parked container, which such a one can't become.
        assert "/bin/vmexec" in await _programs(container)
