"""QEMU's command line: a pure function of what is wanted, what the host can do and the descriptors handed over."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from firkin.frozen import dataclass
from firkin.vmm.config import VmConfig
from firkin.vmm.host import HostCapabilities
from firkin.vmm.share_ports import port_arguments

__all__ = ["AGENT_PORT", "DiskFds", "Handed", "command_line", "kernel_arguments", "machine_type", "program_arguments"]

AGENT_PORT = "firkin.agent"
# With one IOAPIC (QEMU, hw/i386/microvm.c); the agent's port and the balloon are among them.
_FEW_DEVICES = 8
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class DiskFds:
    """A disk's files: its raw `image`, and the qcow2 `layer` over it (see `firkin.vmm.overlay`).

    `device`: the image is a block device, not a file. `between`: saved qcow2 files under the layer, the lowest first.
    """

    image: int
    layer: int
    device: bool = False
    between: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Handed:
    """The descriptors that QEMU inherits, by what they are.

    `agent` and `qmp` are listening sockets (a fork's `agent` is a connected one), `console` a file to append to. A boot
    has `kernel` and `initramfs`; a fork has `state`, opened at its beginning. `ram` is the RAM file: written
    (`ram_shared`) by a boot that shall be saved and by a fork with shares, which has a copy; else mapped privately.
    `pages` is the list of a clone's first ones (`firkin.vmm.first_pages`). `shares` lead to a virtiofsd each.
    """

    agent: int
    qmp: int
    console: int
    kernel: int | None = None
    initramfs: int | None = None
    ram: int | None = None
    ram_shared: bool = False
    state: int | None = None
    pages: int | None = None
    disks: tuple[DiskFds, ...] = ()
    shares: tuple[int, ...] = ()

    def all(self) -> list[int]:
        """Every descriptor, once."""
        own = (self.agent, self.qmp, self.console, self.kernel, self.initramfs, self.ram, self.state, self.pages)
        disks = (fd for disk in self.disks for fd in (disk.image, *disk.between, disk.layer))
        return sorted({fd for fd in (*own, *disks, *self.shares) if fd is not None})


def command_line(config: VmConfig, host: HostCapabilities, handed: Handed, *, name: str) -> list[str]:
    """The argument vector. Nothing but descriptors names a file, so that QEMU needs no right to any path."""
    argv = [*program_arguments(host, name), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]
    if host.sandbox:
        argv += ["-sandbox", _SANDBOX]
    argv += ["-accel", host.accelerator, "-cpu", host.cpu_model(config.cpu_model, nested=config.nested)]
    argv += ["-smp", str(config.cpus), *_memory(config, host, handed)]
    # A state that is saved by itself (`firkin.vmm.save`) has no section that says so; what loads one expects none.
    argv += ["-global", "virtio-mmio.force-legacy=false", "-global", "migration.send-configuration=off"]
    argv += ["-chardev", f"socket,id=qmp,fd={handed.qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"]
    argv += ["-add-fd", f"fd={handed.console},set=1", "-chardev", "file,id=console,path=/dev/fdset/1,append=on"]
    argv += ["-serial", "chardev:console"]
    argv += ["-device", "virtio-serial-device,id=ports,max_ports=2"]
    # The guest of a fork was saved with its port open: where that is so from the beginning, it has nothing to hear of.
    listens = "" if handed.state is not None else ",server=on,wait=off"
    argv += ["-chardev", f"socket,id=agent,fd={handed.agent}{listens}"]
    argv += ["-device", f"virtserialport,bus=ports.0,nr=1,chardev=agent,name={AGENT_PORT}"]
    argv += [*_disks(config, handed), *_networks(config), *_shares(config, handed)]
    if handed.ram is None or host.returns_memory:
        # Without `page-poison` a kernel that counts on what free pages hold reports none.
        argv += ["-device", "virtio-balloon-device,id=balloon,free-page-reporting=on,page-poison=off"]
    if handed.state is not None:
        # Nobody has to learn where a clone is: it has an address of its own, and its network begins with it.
        argv += ["-global", "migration.announce-rounds=0"]
        # It was saved as running, so QEMU lets it run as soon as it is loaded.
        argv += ["-incoming", f"fd:{handed.state}"]
    if handed.kernel is not None:
        argv += ["-kernel", f"/proc/self/fd/{handed.kernel}", "-initrd", f"/proc/self/fd/{handed.initramfs}"]
        argv += ["-append", kernel_arguments(config, host)]
    return argv


def program_arguments(host: HostCapabilities, name: str) -> list[str]:
    """How a command line begins: the program, what its VM is called, and where a lean one finds its firmware."""
    if host.lean is None:
        return [host.qemu, "-name", name]
    # It is run by descriptor: without `process` its name for ps(1) would be a number.
    argv = [host.qemu, "-name", f"{name},process=qemu-system-{host.arch}"]
    for folder in host.lean.firmware:
        argv += ["-L", folder]
    return argv


def kernel_arguments(config: VmConfig, host: HostCapabilities, *, tsc: bool = True) -> str:
    """The kernel's command line; without `tsc` it lacks the counter's rate, of which each measurement differs a little.

    A panic ends the VM at once: `-no-reboot` makes QEMU exit.
    """
    console = "ttyS0" if host.arch == "x86_64" else "ttyAMA0"
    words = [f"console={console}", "quiet", "panic=-1", "reboot=t"]
    if host.accelerator == "tcg":
        if tsc and host.tsc_khz:
            # Calibrating against an emulated timer fails, or hangs, on a busy host.
            words.append(f"tsc_early_khz={host.tsc_khz}")
        # There is no speculation under emulation, only the cost of guarding against it. The watchdog takes a busy
        # host's delays for a bad counter and turns to a clock that drifts. Testing ciphers against themselves takes
        # 0.5 s. Security modules without a policy only cost (AppArmor, TOMOYO, BPF); Landlock is for programs to use.
        # A busy host's delays look like lockups, too.
        words += ["mitigations=off", "tsc=reliable", "cryptomgr.notests", "lsm=landlock", "nowatchdog"]
    if config.cmdline_extra:
        words.append(config.cmdline_extra)
    return " ".join(words)


def machine_type(config: VmConfig, host: HostCapabilities) -> str:
    """QEMU's `-machine`, as far as a saved VM depends on it.

    Without a second IOAPIC microvm has 8 places for virtio devices instead of 24, each of which takes time and memory
    of every start, used or not.
    """
    if host.machine != "microvm":
        return "virt,gic-version=max"
    devices = 2 + len(config.disks) + len(config.networks) + len(config.shares)
    return f"microvm,acpi=on,rtc=on,ioapic2={'off' if devices <= _FEW_DEVICES else 'on'}"


def _memory(config: VmConfig, host: HostCapabilities, handed: Handed) -> list[str]:
    machine = machine_type(config, host)
    if config.shares and handed.ram is not None and host.machine == "microvm":
        machine += ",pcie=on"
    size = config.memory >> 20
    argv = ["-m", f"{size}M"]
    if handed.ram is not None:
        backend = f"memory-backend-file,id=ram,size={size}M,mem-path=/proc/self/fd/{handed.ram}"
        backend += f",share={'on' if handed.ram_shared else 'off'}"
        if host.read_only_ram and not handed.ram_shared:
            backend += ",readonly=on,rom=off"
    elif config.shares:
        backend = f"memory-backend-memfd,id=ram,size={size}M,share=on"
    else:
        return ["-machine", machine, *argv]
    return ["-machine", f"{machine},memory-backend=ram", *argv, "-object", backend]


def _disks(config: VmConfig, handed: Handed) -> Iterator[str]:
    numbers = itertools.count(2)
    for index, (disk, fds) in enumerate(zip(config.disks, handed.disks, strict=True)):
        node = f"disk{index}"
        files = []
        for fd in (fds.image, *fds.between, fds.layer):
            number = next(numbers)
            yield from ("-add-fd", f"fd={fd},set={number}")
            files.append(f"/dev/fdset/{number}")
        image: dict[str, object] = {
            "driver": "raw",
            "read-only": not disk.direct,
            "file": {"driver": "host_device" if fds.device else "file", "filename": files[0]},
        }
        for name in files[1:-1]:
            file = {"driver": "file", "filename": name, "locking": "off"}
            image = {"driver": "qcow2", "read-only": True, "backing": image, "file": file}
        options = {
            "node-name": node,
            "driver": "qcow2",
            "read-only": disk.read_only,
            "discard": "unmap",
            # The layer dies with the VM: nothing in it needs to reach the host's disk. What is the caller's does.
            "cache": {"direct": False, "no-flush": not disk.direct},
            "file": {"driver": "file", "filename": files[-1], "locking": "off"},
            "data-file" if disk.direct else "backing": image,
        }
        yield from ("-blockdev", json.dumps(options))
        # A full disk of the host is the guest's I/O error; by default QEMU would stop the guest, for ever.
        device = f"virtio-blk-device,id={node},drive={node},serial={node},num-queues=1,werror=report,rerror=report"
        yield from ("-device", device)


def _networks(config: VmConfig) -> Iterator[str]:
    for index, network in enumerate(config.networks):
        yield from ("-netdev", f"stream,id=net{index},server=off,addr.type=fd,addr.str={network.fd}")
        yield from ("-device", f"virtio-net-device,id=net{index},netdev=net{index},mac={network.mac}")


def _shares(config: VmConfig, handed: Handed) -> Iterator[str]:
    if config.shares and handed.ram is not None:
        # What is saved, and what comes of it, has places for them.
        yield from port_arguments()
        return
    for index, (share, fd) in enumerate(zip(config.shares, handed.shares, strict=True)):
        tag = share.tag.replace(",", ",,")
        yield from ("-chardev", f"socket,id=share{index},fd={fd}")
        yield from ("-device", f"vhost-user-fs-device,id=share{index},chardev=share{index},tag={tag}")
