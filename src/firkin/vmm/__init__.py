"""The virtual machine: probe, QEMU, boot assets, base VMs."""

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
