"""The virtual machine: probe, QEMU, boot assets, base VMs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin.lazy import attributes

if TYPE_CHECKING:
    from firkin.vmm.config import BootLog, Disk, Network, Share, VmConfig
    from firkin.vmm.folder import VmFolder, live, reclaim
    from firkin.vmm.host import HostCapabilities
    from firkin.vmm.kernel import KernelImage
    from firkin.vmm.machine import VirtualMachine
    from firkin.vmm.timings import Timings

__all__ = [
    "BootLog",
    "Disk",
    "HostCapabilities",
    "KernelImage",
    "Network",
    "Share",
    "Timings",
    "VirtualMachine",
    "VmConfig",
    "VmFolder",
    "live",
    "reclaim",
]

__getattr__ = attributes(
    __name__,
    {
        "BootLog": "config",
        "Disk": "config",
        "HostCapabilities": "host",
        "KernelImage": "kernel",
        "Network": "config",
        "Share": "config",
        "Timings": "timings",
        "VirtualMachine": "machine",
        "VmConfig": "config",
        "VmFolder": "folder",
        "live": "folder",
        "reclaim": "folder",
    },
)
