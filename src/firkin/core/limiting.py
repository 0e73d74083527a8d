"""Setting limits in a running guest, which knows the numbers of its disks."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from firkin.core.guest_root import disk_device

if TYPE_CHECKING:
    from firkin.core.limits import Limits
    from firkin.core.options import ContainerOptions
    from firkin.types import ContainerId
    from firkin.vmm.machine import VirtualMachine

__all__ = ["before_start", "set_limits"]


async def set_limits(vm: VirtualMachine, guest_id: ContainerId, options: ContainerOptions, limits: Limits) -> None:
    """Set `limits` on the cgroup of a container that is there. Raises `InvalidInputError`, `AgentError`."""
    disk = ""
    if limits.rates:
        # The one that is written to: a writable layer's is the second.
        device = (await vm.agent.stat(disk_device(int(options.writable_layer is not None)))).rdev
        disk = f"{os.major(device)}:{os.minor(device)}"
    await vm.agent.update_resources(guest_id, limits.cgroup_files(vcpus=options.vcpus, disk=disk))


def before_start(
    vm: VirtualMachine, guest_id: ContainerId, options: ContainerOptions, *others: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[None]] | None:
    """What is to be done between the making of the first process and its start: the disk's rates, then `others`."""
    work = list(others)
    if limits := options.disk_rates:
        work.insert(0, lambda: set_limits(vm, guest_id, options, limits))
    if not work:
        return None

    async def done() -> None:
        for step in work:
            await step()

    return done
