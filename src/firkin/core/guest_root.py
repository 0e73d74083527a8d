"""The disks of a container's root and how the agent mounts them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from firkin.vmm.config import BootLog, Disk, VmConfig
from firkin.vmm.kernel import KernelImage

if TYPE_CHECKING:
    from firkin.core.options import ContainerOptions
    from firkin.types import ContainerId

__all__ = ["GuestMount", "disk_device", "root_mounts", "rootfs_path", "vm_config"]


# No thread that reads ahead what a short container never needs; it would run, and end, beside the first process.
_ROOT_OPTIONS = ("noinit_itable", "no_prefetch_block_bitmaps")


# What `firkin.core.parking` makes of the default options, kept because a fork is spawned before that is imported.
_PARKED = Path(__file__).with_name("parked.json")


class GuestMount(NamedTuple):
    """One Mount call of the agent, in its own namespace, before the container's first process."""

    type: str
    source: str
    destination: str
    options: tuple[str, ...] = ()


def disk_device(index: int) -> str:
    """The guest's name of the disk at `index` of `VmConfig.disks`.

    Virtio-mmio slots are found in the order in which QEMU was given them (`tests/core/test_disks.py` holds it). Asking
    disks for their serials would do as well, and is one more path to translate in each fork.
    """
    return f"/dev/vd{chr(ord('a') + index)}"


def rootfs_path(container_id: ContainerId) -> str:
    """Where the agent mounts a container's root in the guest."""
    return f"/run/container/{container_id}/rootfs"


def vm_config(options: ContainerOptions, root: Path) -> VmConfig:
    """The VM of a container whose root filesystem image is `root`."""
    disks = [Disk(root, overlay=options.writable_layer is None, read_only=options.writable_layer is not None)]
    if options.writable_layer is not None:
        disks.append(Disk(options.writable_layer, overlay=False))
    return VmConfig(
        cpus=options.vcpus,
        memory=int(options.memory),
        kernel=None if options.kernel is None else KernelImage.from_file(options.kernel),
        cmdline_extra=" ".join(options.cmdline_extra),
        disks=tuple(disks),
        boot_log=None if options.boot_log is None else BootLog.file(options.boot_log),
        accel=options.accel or "",
        cpu_model=options.cpu_model or "",
        nested=options.nested,
        parked=_PARKED.read_bytes(),
    )


def root_mounts(options: ContainerOptions, root: str) -> list[GuestMount]:
    """The mounts, in order, that put the container's root filesystem at `root` in the guest."""
    if options.writable_layer is None:
        return [GuestMount("ext4", disk_device(0), root, _ROOT_OPTIONS)]
    base = root.removesuffix("/rootfs")
    layers = f"lowerdir={base}/lower,upperdir={base}/layer/upper,workdir={base}/layer/work"
    return [
        GuestMount("ext4", disk_device(0), f"{base}/lower", ("ro", "noload")),
        GuestMount("ext4", disk_device(1), f"{base}/layer"),
        GuestMount("overlay", "overlay", root, (layers,)),
    ]
