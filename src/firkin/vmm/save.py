"""Saving a running VM: devices, RAM and disks of one instant, into a folder that `firkin.vmm.saved` opens.

A fork's RAM is a private mapping, which QEMU can't leave out of a migration. Its devices are therefore saved alone, and
the RAM is read from QEMU's memory: the file that the fork began as, and over it the pages that are no longer that
file's (proc_pid_pagemap(5)). docs/decisions/snapshots.md has the figures.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from firkin import faults
from firkin.errors import InvalidInputError, VirtualMachineError
from firkin.oci.copying import copy_content, copy_file
from firkin.vmm.bounds import LEAST_FILE
from firkin.vmm.config import Disk, VmConfig
from firkin.vmm.needs import Needs
from firkin.vmm.ramfile import copy_sparse
from firkin.vmm.saved import FORMAT, hash_file, remember, write_json

if TYPE_CHECKING:
    from firkin.vmm.machine import VirtualMachine

__all__ = ["DiskReport", "SaveReport", "changed_pages", "check_savable", "open_memory", "save", "save_devices"]

_STOPPED = faults.declare("save.stopped", "the VM stands still, nothing of it is saved")
_WRITTEN = faults.declare("save.written", "the VM runs again, its files are written but have no manifest")
_DEVICES_SET = 900
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CHUNK = 1 << 20
# The top bytes of pagemap's entries: bit 63 in RAM, bit 62 swapped out, bit 61 a page of a file.
_CHANGED = bytes(int(bool(flags & 0xC0) and not flags & 0x20) for flags in range(256))
# Runs of changed pages; a gap of a few others is cheaper to read along.
_RUNS = re.compile(rb"\x01+(?:\x00{1,8}\x01+)*")


@dataclass(frozen=True, slots=True)
class DiskReport:
    """How a file of a disk came to be: `link` and `clone` share what is on the disk, `copy` does not.

    `overlay`: of a clone, whose own layer begins empty. `bytes` is what was stored anew, `seconds` the time it took.
    """

    file: str
    method: Literal["link", "clone", "copy", "overlay"]
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What a save wrote, and for how many seconds the VM stood still."""

    disks: tuple[DiskReport, ...]
    ram_bytes: int
    state_bytes: int
    paused: float
    seconds: float

    def as_document(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


def check_savable(config: VmConfig) -> None:
    """Raise `InvalidInputError` that names what of a VM of `config` can't be saved."""
    if config.shares:
        sources = ", ".join(str(share.source) for share in config.shares)
        raise InvalidInputError(
            f"a container with a live share ({sources}) can't be saved", hint="copy the files in, or use a volume"
        )
    for disk in config.disks:
        if stat.S_ISBLK(disk.path.stat().st_mode):
            raise InvalidInputError(
                f"the block device {disk.path} can't be saved with its container", hint="use a disk image"
            )


def open_memory(pid: int) -> int:
    """A descriptor of a process's memory. Raises `PermissionError` where the host is hardened against that.

    (By Yama, or for root without CAP_SYS_PTRACE.)
    """
    return os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)


async def save(
    vm: VirtualMachine,
    folder: Path,
    document: dict[str, Any],
    *,
    epoch: int = 1,
    go_on: bool = True,
    lasting: bool = True,
    memory: Callable[[int], int] = open_memory,
) -> SaveReport:
    """Save `vm`, whose guest was quiesced, into the empty `folder`; `document` is kept for who restores it.

    The processors stand still meanwhile, and run on afterwards unless `go_on` is false. `lasting`: the files are on the
    disk, with hashes, when this returns; else they are only good for restores by this process. `memory` opens QEMU's.
    Raises `InvalidInputError`, `VirtualMachineError`, `OSError`.
    """
    check_savable(vm.config)
    began = time.perf_counter()
    with ExitStack() as stack:
        ram = _new(folder / "ram", stack)
        state = _new(folder / "state", stack)
        # Forks open it for writing although they never write it: QEMU before 8.2 can't do else.
        os.fchmod(ram, 0o444 if vm.host.read_only_ram else 0o666)
        os.ftruncate(ram, vm.config.memory)
        if vm.ram >= 0:
            await asyncio.to_thread(copy_content, vm.ram, ram, vm.config.memory)
        stopped = time.perf_counter()
        await vm.pause()
        try:
            faults.point(_STOPPED)
            await save_devices(vm.qmp, state)
            ram_bytes = await _save_ram(vm, ram, memory)
            disks = await asyncio.to_thread(_save_disks, vm, folder)
        finally:
            if go_on and vm.running:
                await vm.resume()
        paused = time.perf_counter() - stopped
        faults.point(_WRITTEN)
        report = SaveReport(
            tuple(report for _, reports in disks for report in reports),
            ram_bytes,
            os.fstat(state).st_size,
            paused,
            time.perf_counter() - began,
        )
        manifest = _manifest(vm, document, [disk for disk, _ in disks], epoch) | {"report": report.as_document()}
        await asyncio.to_thread(_finish, folder, manifest, lasting, vm.host.boot_id)
    return report


def _new(path: Path, stack: ExitStack) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd


class Ask(Protocol):
    """Sends a monitor command; `passing` is a descriptor that goes along (`VirtualMachine.qmp`)."""

    async def __call__(self, command: str, *, passing: int | None = None, **arguments: object) -> object: ...


async def save_devices(ask: Ask, state: int) -> None:
    """Save the devices of a VM that stands still, without its RAM.

    Despite its name the command is any machine's; it notes the VM as running, so that a restore runs at once.
    """
    writable = os.open(f"/proc/self/fd/{state}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        await ask("add-fd", passing=writable, **{"fdset-id": _DEVICES_SET})
        try:
            # Not `live`: that would take the disks away from a VM that is to run on.
            await ask("xen-save-devices-state", filename=f"/dev/fdset/{_DEVICES_SET}", live=False)
        finally:
            await ask("remove-fd", **{"fdset-id": _DEVICES_SET})
    finally:
        os.close(writable)


async def _save_ram(vm: VirtualMachine, ram: int, open_memory: Callable[[int], int]) -> int:
    """Write what is not yet in the RAM file; the bytes written."""
    try:
        memory = open_memory(vm.pid)
    except PermissionError:
        # QEMU itself writes it out, all of it.
        return await _dump_ram(vm, ram)
    try:
        return await asyncio.to_thread(_copy_changed, vm.pid, memory, await _host_address(vm), ram)
    finally:
        os.close(memory)


async def _host_address(vm: VirtualMachine) -> int:
    """Where QEMU has the guest's RAM: one mapping, whatever holes the guest sees in it."""
    first = _regions(vm)[0][0]
    command: dict[str, Any] = {"command-line": f"gpa2hva {first:#x}"}
    answer = await vm.qmp("human-monitor-command", **command)
    found = re.search(r"is (0x[0-9a-f]+)", str(answer))
    if found is None:
        raise VirtualMachineError(f"QEMU does not say where the guest's RAM is: {answer}")
    return int(found[1], 16)


def _regions(vm: VirtualMachine) -> list[tuple[int, int]]:
    """The guest's RAM as (physical address, size), in the order in which it is in the file.

    QEMU, hw/i386/microvm.c (microvm_memory_init) and hw/arm/virt.c (base_memmap).
    """
    size = vm.config.memory
    if vm.host.machine != "microvm":
        return [(1 << 30, size)]
    low = min(size, 3 << 30)
    return [(0, low), (4 << 30, size - low)] if size > low else [(0, low)]


async def changed_pages(vm: VirtualMachine) -> list[tuple[int, int]]:
    """The runs (first and last offset in the RAM file) of what a clone has written.

    Raises `OSError`, also where this process may not look at QEMU's, and `VirtualMachineError`.
    """
    address = await _host_address(vm)
    return await asyncio.to_thread(lambda: list(_changed_pages(vm.pid, address, vm.config.memory)))


def _copy_changed(pid: int, memory: int, address: int, ram: int) -> int:
    size = os.fstat(ram).st_size
    written = 0
    for first, last in _changed_pages(pid, address, size):
        for offset in range(first, last, _CHUNK):
            data = os.pread(memory, min(_CHUNK, last - offset), address + offset)
            if not data:
                raise VirtualMachineError("QEMU's memory can't be read: it has ended")
            written += os.pwrite(ram, data, offset)
    return written


def _changed_pages(pid: int, address: int, size: int) -> Iterator[tuple[int, int]]:
    """The (first, last) offsets of runs of pages that are QEMU's own, not those of the file below."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:  # noqa: PTH123 - a path would be read to its end
        for begin in range(0, size, 1 << 30):
            count = min(1 << 30, size - begin) // _PAGE * 8
            entries = os.pread(pagemap.fileno(), count, (address + begin) // _PAGE * 8)
            if len(entries) != count:
                raise VirtualMachineError("the page map of QEMU's memory can't be read: it has ended")
            for run in _RUNS.finditer(entries[7::8].translate(_CHANGED)):
                yield begin + run.start() * _PAGE, begin + run.end() * _PAGE


async def _dump_ram(vm: VirtualMachine, ram: int) -> int:
    path = vm.folder.path / "dump"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o666)
        os.ftruncate(ram, 0)
        os.ftruncate(ram, vm.config.memory)
        added: Any = await vm.qmp("add-fd", passing=fd, **{"fdset-id": _DEVICES_SET})
        written = offset = 0
        try:
            for address, size in _pieces(_regions(vm)):
                await vm.qmp("pmemsave", val=address, size=size, filename=f"/proc/self/fd/{added['fd']}")
                written += await asyncio.to_thread(copy_sparse, fd, ram, offset)
                offset += size
        finally:
            await vm.qmp("remove-fd", **{"fdset-id": _DEVICES_SET})
        return written
    finally:
        os.close(fd)
        path.unlink()


def _pieces(regions: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """So small that QEMU may write one into a file, and answers in time: it copies 1 KiB at a time."""
    for address, size in regions:
        for offset in range(0, size, LEAST_FILE):
            yield address + offset, min(LEAST_FILE, size - offset)


def _save_disks(vm: VirtualMachine, folder: Path) -> list[tuple[dict[str, Any], list[DiskReport]]]:
    return [_save_disk(vm, index, disk, folder) for index, disk in enumerate(vm.config.disks)]


def _save_disk(vm: VirtualMachine, index: int, disk: Disk, folder: Path) -> tuple[dict[str, Any], list[DiskReport]]:
    """An image that nobody writes is linked, layers too; what the guest writes is copied, by reflink where there is."""
    image = f"disk{index}.raw"
    reports = [_keep(disk.path, folder / image, shared=disk.immutable)]
    layers = []
    written = [] if disk.direct or disk.read_only else [vm.folder.path / f"overlay{index}.qcow2"]
    for number, source in enumerate([*disk.layers, *written]):
        layers.append(f"disk{index}-{number}.qcow2")
        reports.append(_keep(source, folder / layers[-1], shared=source not in written))
    return {"image": image, "layers": layers, "read_only": disk.read_only}, reports


def _keep(source: Path, destination: Path, *, shared: bool) -> DiskReport:
    """Have `source` at `destination`; `shared`: nobody ever writes it, so that a second name does."""
    began = time.perf_counter()
    method: Literal["link", "clone", "copy"] = "link"
    try:
        if not shared:
            raise OSError(errno.EXDEV, "it is written to")
        # Of what was removed meanwhile, or is on another file system, no name can be made.
        _link(source, destination)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOENT, errno.EPERM, errno.EMLINK):
            raise
        with destination.open("xb") as copy:
            method = copy_file(source, copy.fileno())
            os.fchmod(copy.fileno(), 0o400)
    stored = destination.stat().st_blocks * 512 if method == "copy" else 0
    return DiskReport(destination.name, method, stored, time.perf_counter() - began)


def _link(source: Path, destination: Path) -> None:
    """Also of a `/proc/self/fd/N`, which Python's `os.link` only follows where it is given a folder."""
    folder = os.open(destination.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(source, destination.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _manifest(vm: VirtualMachine, document: dict[str, Any], disks: list[dict[str, Any]], epoch: int) -> dict[str, Any]:
    peer = vm.link.peer
    assert peer is not None
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(),
        "needs": Needs.of(vm.config, vm.host).as_document(),
        "schema": peer.schema.hex(),
        "protocol": list(peer.version),
        "sentinel": vm.link.sentinel.hex(),
        "epoch": epoch,
        "disks": disks,
        "document": document,
    }


def _finish(folder: Path, manifest: dict[str, Any], lasting: bool, boot_id: str) -> None:
    """Hash, flush and describe what was written."""
    with ExitStack() as stack:
        files = {}
        for path in sorted(folder.iterdir()):
            files[path.name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, files[path.name])
        described = {}
        for name, fd in files.items():
            hashed = hash_file(fd) if lasting or name == "state" else ""
            described[name] = {"bytes": os.fstat(fd).st_size, "sha256": hashed}
            if lasting:
                os.fsync(fd)
        write_json(folder / "manifest.json", manifest | {"files": described})
        remember(folder, files, boot_id)
