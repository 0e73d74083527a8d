"""What a caller asks of a VM: frozen values, checked where they are made."""

from __future__ import annotations

import os
from pathlib import Path

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types import VirtiofsTag
from firkin.vmm.kernel import KernelImage

__all__ = ["BootLog", "Disk", "Network", "Share", "VmConfig", "disk_capacity"]

MIB = 1 << 20
_LEAST_CAPACITY = 1 << 40
_MAX_CPUS = 64
_MAX_DISKS = 16
_MAX_NETWORKS = 4
_MAX_SHARES = 8
# virtio-mmio transports of QEMU's microvm, less those of the serial ports and of the balloon.
_MAX_DEVICES = 22
_MIN_MEMORY = 96 * MIB


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of the guest, `serial:disk<index>` there, in the order of `VmConfig.disks`.

    `path` is a raw image. With `overlay` the guest's writes go to a throw-away qcow2 file in the VM's folder and `path`
    is never written; without it they go to `path` itself. `read_only`: the guest cannot write. `immutable`: nobody
    ever writes `path`. Of a disk that was saved (`firkin.vmm.save`), `layers` are qcow2 files over `path`, the lowest
    first, immutable too; `top` is one whose private copy the overlay begins as.
    """

    path: Path
    read_only: bool = False
    overlay: bool = True
    immutable: bool = False
    layers: tuple[Path, ...] = ()
    top: Path | None = None

    @property
    def direct(self) -> bool:
        """The guest writes into `path` itself."""
        return not self.overlay and not self.read_only

    def size(self) -> int:
        """Bytes of the image now. Raises `InvalidInputError` where it can't be opened."""
        try:
            with self.path.open("rb") as file:
                return file.seek(0, os.SEEK_END)
        except OSError as error:
            raise InvalidInputError(f"can't open the disk {self.path}: {error.strerror}", value=self.path) from error


@dataclass(frozen=True, slots=True)
class Network:
    """A network interface on a connected stream socket of who is behind it.

    Each frame is preceded by its length, u32 big-endian. `fd` stays the caller's: it is handed to QEMU and may be
    closed once `VirtualMachine.start` has returned. `mac`: six bytes. The guest's card gets `addresses` (with their
    prefix), default routes by `gateways`, and `mtu` (0: its own).
    closed once `VirtualMachine.start` has returned. `mac`: six bytes. Raises `InvalidInputError`.
    """

    fd: int
    mac: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    mtu: int = 0

    def __post_init__(self) -> None:
        parts = self.mac.split(":")
        if len(parts) != 6 or any(len(part) != 2 or not _is_hex(part) for part in parts):
            raise InvalidInputError(
                f"{self.mac!r} is not a MAC address", value=self.mac, hint="six hexadecimal bytes, aa:bb:…"
            )


@dataclass(frozen=True, slots=True)
class Share:
    """A folder of the host that the guest mounts by `tag`, live; with `only_file`, `source` is one file, and the folder
    holds nothing but it, as `file`.

    `read_only` is enforced on the host's side. The VM runs a virtiofsd for each.
    """

    tag: VirtiofsTag
    source: Path
    read_only: bool = False
    only_file: bool = False


@dataclass(frozen=True, slots=True)
class BootLog:
    """Where the guest's console goes. Without one it is `boot.log` in the VM's folder, removed with it."""

    path: Path

    @classmethod
    def file(cls, path: Path | str) -> BootLog:
        """Append to this file; it outlives the VM."""
        return cls(Path(path))


@dataclass(frozen=True, slots=True)
class VmConfig:
    """The shape of a VM. Sizes are bytes; `cpu_model` is QEMU's `-cpu`, empty for the host's best.

    `accel` is "kvm", "tcg" or "auto" (empty: `FIRKIN_ACCEL`, then auto). `cmdline_extra` is appended to the kernel's
    command line. `parked` is the specification of a container that a base VM of this shape holds, made and waiting
    (`Calls.park`). Raises `InvalidInputError` for what can be told from the values alone.
    """

    cpus: int = 2
    memory: int = 512 * MIB
    kernel: KernelImage | None = None
    cmdline_extra: str = ""
    disks: tuple[Disk, ...] = ()
    networks: tuple[Network, ...] = ()
    shares: tuple[Share, ...] = ()
    boot_log: BootLog | None = None
    accel: str = ""
    cpu_model: str = ""
    nested: bool = False
    parked: bytes = b""

    def __post_init__(self) -> None:
        if not 1 <= self.cpus <= _MAX_CPUS:
            raise InvalidInputError(f"a VM has 1 to {_MAX_CPUS} cpus, not {self.cpus}", value=self.cpus)
        if self.memory < _MIN_MEMORY or self.memory % MIB:
            raise InvalidInputError(
                f"a VM's memory is whole MiB, at least {_MIN_MEMORY // MIB}, not {self.memory} bytes", value=self.memory
            )
        for what, given, most in (
            ("disks", self.disks, _MAX_DISKS),
            ("networks", self.networks, _MAX_NETWORKS),
            ("shares", self.shares, _MAX_SHARES),
        ):
            if len(given) > most:
                raise InvalidInputError(f"a VM has at most {most} {what}", value=given)
        if len(self.disks) + len(self.networks) + len(self.shares) > _MAX_DEVICES:
            raise InvalidInputError(f"a VM has at most {_MAX_DEVICES} disks, networks and shares together", value=self)
        if self.accel not in ("", "auto", "kvm", "tcg"):
            raise InvalidInputError(f"no accelerator {self.accel!r}", value=self.accel, hint="kvm, tcg or auto")
        if any(ord(char) < 32 or ord(char) > 126 for char in self.cmdline_extra):
            raise InvalidInputError("a kernel command line is printable ASCII", value=self.cmdline_extra)
        if any(char in self.cpu_model for char in " \n\0"):
            raise InvalidInputError(f"{self.cpu_model!r} is not a CPU model", value=self.cpu_model)


def disk_capacity(size: int) -> int:
    """The size in bytes that the guest sees of an image of `size` bytes: 1 TiB, or the next power of two.

    It is always that large, so that a saved VM, whose driver has read the capacity, serves any image. What lies
    beyond the image reads as zeros; the file system in the image keeps to its own size.
    """
    capacity = _LEAST_CAPACITY
    while capacity < size:
        capacity *= 2
    return capacity


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF" for char in text)
