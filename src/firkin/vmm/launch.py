"""Starting one QEMU in a claimed folder: open what it may touch, hand it over, connect before it runs."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firkin.errors import InvalidInputError, StateError
from firkin.vmm.argv import DiskFds, Handed, command_line
from firkin.vmm.assets import BootAssets
from firkin.vmm.bounds import group_bounds, process_limits
from firkin.vmm.config import Disk, Share, VmConfig, disk_capacity
from firkin.vmm.folder import VmFolder
from firkin.vmm.host import HostCapabilities
from firkin.vmm.overlay import write_overlay, write_window
from firkin.vmm.ram_guard import identity_of
from firkin.vmm.ramfile import copy_saved
from firkin.vmm.spawn import Identity, spawn, unguard

if TYPE_CHECKING:
    from firkin.vminitd.framing import Framing
    from firkin.vminitd.wire import Hello
    from firkin.vmm.process import Child, QemuProcess

__all__ = ["Boot", "Launched", "Restore", "launch"]


@dataclass(frozen=True, slots=True)
class Boot:
    """Start by booting `assets`. `ram`: the RAM file (a path) of a VM that shall be saved."""

    assets: BootAssets
    ram: Path | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """Start from a saved VM: descriptors of its RAM file and device state, read only and at their beginning.

    `pages`: the list of its first pages (`firkin.vmm.first_pages`), where there is one.
    """

    ram: int
    state: int
    pages: int | None = None


@dataclass(slots=True)
class Launched:
    """A started QEMU. `agent` is connected to the guest's port, `shares` (of a restore) lead to the daemons of what is
    still to be plugged in.

    `said` is where its stderr goes, `console` where the guest's console does, `greeted` what `Link.begin` takes where
    the HELLO was sent.
    """

    child: subprocess.Popen[bytes]
    said: Path
    console: Path
    agent: socket.socket
    helpers: Sequence[Child] = ()
    greeted: tuple[Framing, Hello] | None = None
    guarded: tuple[int, int] | None = None
    shares: tuple[socket.socket, ...] = ()

    def watched(self) -> QemuProcess:
        """The process, watched by the running event loop. To be called once."""
        from firkin.vmm.process import QemuProcess

        process = QemuProcess(self.child, said=self.said, console=self.console, helpers=self.helpers)
        if (file := self.guarded) is not None:
            process.ended.add_done_callback(lambda _: unguard(file))
        return process

    def end(self) -> None:
        """Kill a process that nobody watches, and wait until it is gone."""
        self.close()
        self.child.kill()
        self.child.wait()
        if self.guarded is not None:
            unguard(self.guarded)

    def close(self) -> None:
        """Close the sockets; the process is somebody else's."""
        self.agent.close()
        self.drop_shares()

    def drop_shares(self) -> None:
        """Close what leads to the daemons, once QEMU has it: they end with the last who does."""
        for share in self.shares:
            share.close()


def launch(folder: VmFolder, config: VmConfig, host: HostCapabilities, start: Boot | Restore) -> Launched:
    """Spawn QEMU. Raises `InvalidInputError` where a disk or the boot log can't be opened, `StateError` where
    another VM has the disk, else `BootError`."""
    console = config.boot_log.path if config.boot_log else folder.path / "boot.log"
    said = folder.path / "qemu.log"
    images = [disk.size() for disk in config.disks]
    folder.cage.bound(group_bounds(config, folder.path, images))
    with ExitStack() as opened, ExitStack() as failed:

        def fd(path: Path, flags: int) -> int:
            number = os.open(path, flags | os.O_CLOEXEC, 0o600)
            opened.callback(os.close, number)
            return number

        qmp = opened.enter_context(folder.listen("qmp.sock"))
        agent, connected = _agent_sockets(folder, start)
        opened.enter_context(agent)
        failed.enter_context(connected)
        kernel = initramfs = ram = state = pages = None
        if isinstance(start, Boot):
            kernel = fd(start.assets.vmlinux, os.O_RDONLY)
            initramfs = fd(start.assets.initramfs, os.O_RDONLY)
            ram = None if start.ram is None else fd(start.ram, os.O_RDWR)
        else:
            state = start.state
            ram, pages = (_own_ram(start.ram, opened), None) if config.shares else (start.ram, start.pages)
        # What is saved has no shares.
        wanted = () if isinstance(start, Boot) and start.ram else config.shares
        helpers, shares = _start_shares(folder, wanted, host, failed)
        handed = Handed(
            agent=agent.fileno(),
            qmp=qmp.fileno(),
            console=fd(_writable(console), os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            kernel=kernel,
            initramfs=initramfs,
            ram=ram,
            ram_shared=isinstance(start, Boot) or bool(config.shares),
            state=state,
            pages=pages,
            disks=tuple(_open_disk(folder, index, disk, opened) for index, disk in enumerate(config.disks)),
            shares=tuple(share.fileno() for share in shares) if ram is None else (),
        )
        # A clone that gives memory back must leave the file whole that it shares with all others.
        guarded = ram if isinstance(start, Restore) and host.returns_memory and not config.shares else None
        child = spawn(
            command_line(config, host, handed, name=folder.name),
            identity=_identity(folder, host),
            fds=[*handed.all(), *(network.fd for network in config.networks)],
            stderr=fd(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            cage=folder.cage,
            limits=process_limits(config, images, alone=host.uid_count > 1),
            ram=guarded,
            lean=host.lean,
            pages=pages,
            # Where it translates, QEMU asks for them for its buffer and each small piece of ROM: 4 MB of nothing.
            huge_pages=host.accelerator != "tcg",
        )
        failed.pop_all()
        file = None if guarded is None else identity_of(guarded)
        return Launched(child, said, console, connected, helpers, guarded=file, shares=tuple(shares))


def _agent_sockets(folder: VmFolder, start: Boot | Restore) -> tuple[socket.socket, socket.socket]:
    """QEMU's end of the guest's port, and ours, which does not block."""
    if isinstance(start, Boot):
        return folder.listen("agent.sock"), folder.connect("agent.sock")
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    return theirs, ours


def _own_ram(saved: int, opened: ExitStack) -> int:
    """A copy of a RAM file: daemons map the memory that they share with the guest, and the saved one stays as it is."""
    ram = os.memfd_create("firkin-ram", os.MFD_CLOEXEC)
    opened.callback(os.close, ram)
    copy_saved(saved, ram)
    return ram


def _start_shares(
    folder: VmFolder, shares: Sequence[Share], host: HostCapabilities, failed: ExitStack
) -> tuple[list[Child], list[socket.socket]]:
    """A virtiofsd for each share, and the sockets that lead there. One that QEMU does not take over ends by itself."""
    if not shares:
        return [], []
    from firkin.vmm.virtiofsd import start_virtiofsd

    helpers, sockets = [], []
    for index, share in enumerate(shares):
        helper, connected = start_virtiofsd(folder, index, share, host)
        helpers.append(helper)
        sockets.append(failed.enter_context(connected))
    return helpers, sockets


def _identity(folder: VmFolder, host: HostCapabilities) -> Identity:
    if not host.uid_count:
        return Identity()
    groups = (host.kvm_group,) if host.accelerator == "kvm" and host.kvm_group >= 0 else ()
    return Identity(host.uid_base + folder.inode % host.uid_count, groups)


def _open_disk(folder: VmFolder, index: int, disk: Disk, opened: ExitStack) -> DiskFds:
    try:
        image = os.open(disk.path, (os.O_RDWR if disk.direct else os.O_RDONLY) | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInputError(f"can't open the disk {disk.path}: {error.strerror}", value=disk.path) from error
    opened.callback(os.close, image)
    _lock(image, disk)
    mode = os.fstat(image).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise InvalidInputError(f"{disk.path} is neither a file nor a block device", value=disk.path)
    size = os.lseek(image, 0, os.SEEK_END)
    path = folder.path / f"overlay{index}.qcow2"
    layer = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    opened.callback(os.close, layer)
    between = tuple(os.open(saved, os.O_RDONLY | os.O_CLOEXEC) for saved in disk.layers)
    for number in between:
        opened.callback(os.close, number)
    if disk.direct:
        write_window(layer, disk_capacity(size), size)
    elif disk.top is not None:
        from firkin.oci.copying import copy_file

        copy_file(disk.top, layer)
    else:
        write_overlay(layer, disk_capacity(size))
    if disk.read_only:
        # QEMU wants a descriptor of just the access that it needs.
        layer = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, layer)
    return DiskFds(image, layer, stat.S_ISBLK(mode), between)


def _lock(image: int, disk: Disk) -> None:
    """Keep others from writing what is read here, and from using what is written, for as long as QEMU has the file.

    QEMU's own lock is taken when a fork has been loaded, and then the VM stands still, where this one is an error.
    """
    try:
        fcntl.flock(image, (fcntl.LOCK_EX if disk.direct else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = "many may have it read-only, or one to write"
        raise StateError(f"the disk {disk.path} is in use by another VM", hint=hint) from None


def _writable(path: Path) -> Path:
    """A boot log that can't be written is the caller's mistake."""
    if not path.parent.is_dir():
        raise InvalidInputError(f"there is no folder for the boot log {path}", value=path)
    return path
