"""What is done in a VM before it is saved, so that its forks need not do it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from firkin.ext4 import make_empty

if TYPE_CHECKING:
    from firkin.vminitd.agent import Agent
    from firkin.vmm.config import Disk, VmConfig
    from firkin.vmm.host import HostCapabilities

__all__ = ["ready", "stand_in_image"]

_PLACE = "/run/firkin/first-disk"
_IMAGE = 32 << 20


def stand_in_image(disk: Disk, folder: Path) -> Path:
    """An image in `folder` that is a disk of the same capacity as `disk`, with an empty ext4 at its beginning."""
    size = disk.size()
    image = folder / f"empty-{size}"
    if not image.exists():
        make_empty(image, _IMAGE, journal=False)
        os.truncate(image, max(size, _IMAGE))
    return image


def _has_pilot(config: VmConfig, host: HostCapabilities) -> bool:
    """Whether translating ahead pays: there is translation, and a processor that has nothing else to do."""
    return host.accelerator == "tcg" and config.cpus > 1


async def ready(agent: Agent, config: VmConfig, host: HostCapabilities) -> None:
    """Park a container, and let the kernel make what it keeps of the first mount of an ext4 such as containers have."""
    if not config.parked:
        return
    if config.disks:
        # Its pages in the kernel's cache go when the disk is closed: the fork's disk is another.
        await agent.mount("ext4", "serial:disk0", _PLACE, options=("ro",), mkdir=True)
        await agent.umount(_PLACE)
    await agent.park(config.parked, pilot=_has_pilot(config, host))
