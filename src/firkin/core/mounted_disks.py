"""The disks behind a container's volume and image mounts, held for as long as it lives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from firkin.types import StateDirs

if TYPE_CHECKING:
    from firkin.core.mount import Mount
    from firkin.core.options import ContainerOptions
    from firkin.vmm import VmFolder

__all__ = ["HELD", "hold_disks"]

HELD = ("volume", "image")
"""The kinds of mounts whose disks somebody has to find, and to hold."""


async def hold_disks(
    options: ContainerOptions, folder: VmFolder, dirs: StateDirs, stack: ExitStack
) -> Callable[[Mount], Path] | None:
    """What finds the disk of a mount, for `prepare`. `stack` lets go of the disks.

    A volume that is not there is made; an anonymous one lies in the VM's folder and goes with it. Raises `StateError`
    where another container has a volume, `ImageError`.
    """
    found: dict[str, Path] = {}
    for mount in options.mounts:
        if mount.staging in found:
            continue
        if mount.kind == "volume":
            found[mount.staging] = _volume(mount, options, folder, dirs, stack)
        elif mount.kind == "image":
            found[mount.staging] = await _image(mount, options, dirs, stack)
    return (lambda mount: found[mount.staging]) if found else None


def _volume(mount: Mount, options: ContainerOptions, folder: VmFolder, dirs: StateDirs, stack: ExitStack) -> Path:
    from firkin.core.volumes import DEFAULT_SIZE, hold_volume, make_disk

    if not mount.source:
        path = folder.path / f"{mount.staging.rpartition('/')[2]}.ext4"
        make_disk(path, DEFAULT_SIZE)
        return path
    read_only = all(other.read_only for other in options.mounts if other.staging == mount.staging)
    return stack.enter_context(hold_volume(mount.source, read_only=read_only, dirs=dirs)).path


async def _image(mount: Mount, options: ContainerOptions, dirs: StateDirs, stack: ExitStack) -> Path:
    from firkin.oci import ImageStore
    from firkin.oci.ensure import ensure

    pulled = await ensure(
        ImageStore(dirs), mount.source, policy=options.pull, platform=options.platform, convert=options.disk
    )
    assert pulled.rootfs is not None
    return stack.enter_context(pulled.rootfs).path
