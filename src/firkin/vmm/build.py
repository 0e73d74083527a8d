"""Making a base VM: boot, ready the agent, save the devices and the RAM, quit; one builder at a time for each shape."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from firkin import faults
from firkin.errors import BootError
from firkin.types.state import StateDirs
from firkin.vmm.assets import BootAssets
from firkin.vmm.base import BaseVm, Shape, collect, open_base, write_manifest
from firkin.vmm.boot import Running, cold_boot
from firkin.vmm.config import Disk, VmConfig
from firkin.vmm.folder import VmFolder
from firkin.vmm.host import HostCapabilities
from firkin.vmm.launch import Boot
from firkin.vmm.qmp import Qmp
from firkin.vmm.ramfile import copy_sparse, digest, identity
from firkin.vmm.ready import ready, stand_in_image
from firkin.vmm.save import save_devices
from firkin.vmm.timings import Timings
from firkin.vmm.wiring import wire

__all__ = ["find_or_build", "locked"]

_log = logging.getLogger("firkin.vmm.build")
_LOCKED = faults.declare("base.locked", "the builder's lock is held, nothing is made yet")
_BOOTED = faults.declare("base.booted", "the VM to be saved runs")
_SAVED = faults.declare("base.saved", "the VM to be saved has quit, its state and RAM are copied nowhere yet")
_COPIED = faults.declare("base.before-publish", "the base VM is whole under a temporary name")
_PUBLISHED = faults.declare("base.published", "the base VM has its name, the lock is still held")

_LOCK_LIMIT = 180.0
# What the kernel does once after a boot shall be done here, once, not in each fork.
_SETTLE = 0.5


async def find_or_build(
    dirs: StateDirs, config: VmConfig, host: HostCapabilities, assets: BootAssets, timings: Timings
) -> BaseVm:
    """The base VM of this shape, made first where there is none. While another process makes it, wait for that.

    Raises `VirtualMachineError`.
    """
    shape = Shape.of(config, host, assets)
    root = dirs.make("cache", "base")
    folder = root / shape.key
    if base := open_base(folder, host):
        return base
    with timings.phase("base"):
        async with locked(root / f"{shape.key}.lock"):
            if base := open_base(folder, host):
                return base
            faults.point(_LOCKED)
            new = root / f".new-{shape.key}"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=0o700)
            try:
                await _build(dirs, config, host, assets, shape, new)
                faults.point(_COPIED)
                new.rename(folder)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            faults.point(_PUBLISHED)
            removed = await asyncio.to_thread(collect, root, keep=shape.key)
        _log.info("made base VM %s%s", shape.key, f", removed {len(removed)}" if removed else "")
    if base := open_base(folder, host):
        return base
    raise BootError(f"the base VM {shape.key} is gone as soon as it was made", hint="is the cache's disk full?")


async def _build(
    dirs: StateDirs, config: VmConfig, host: HostCapabilities, assets: BootAssets, shape: Shape, new: Path
) -> None:
    with VmFolder.claim(dirs, f"base-{secrets.token_hex(6)}") as folder, ExitStack() as stack:
        ram = folder.path / "ram"
        # QEMU may run as another user: it opens the file by a descriptor, in a folder that nobody else can enter.
        with ram.open("wb") as file:
            os.fchmod(file.fileno(), 0o666)
            file.truncate(config.memory)
        stand_in = _stand_in(config, folder, stack)
        running = await cold_boot(folder, stand_in, host, Boot(assets, ram), Timings())
        try:
            faults.point(_BOOTED)
            with (new / "state").open("wb") as state:
                sentinel = await running.process.or_death(_save(running, config, host, folder, state.fileno()))
                os.fsync(state.fileno())
        finally:
            # It has stopped for good: asking it to quit would only race with its end.
            await running.process.end()
        faults.point(_SAVED)
        await asyncio.to_thread(_keep, new, ram, shape, host, sentinel)


async def _save(running: Running, config: VmConfig, host: HostCapabilities, folder: VmFolder, state: int) -> bytes:
    """Ready the guest for its forks and save the devices to `state`. The sentinel that the forks wait for."""
    from firkin.vminitd.agent import Agent

    qmp = Qmp(folder)

    async def ask(command: str, *, passing: int | None = None, **arguments: object) -> object:
        return await qmp.execute(command, arguments or None, fd=passing)

    try:
        agent = Agent(running.link)
        await asyncio.gather(*wire(agent, config))
        await ready(agent, config, host)
        await agent.quiesce(drop_caches=True)
        await asyncio.sleep(_SETTLE)
        await ask("stop")
        await save_devices(ask, state)
        return running.link.sentinel
    finally:
        await qmp.aclose()
        await running.link.aclose()


def _keep(new: Path, ram: Path, shape: Shape, host: HostCapabilities, sentinel: bytes) -> None:
    """Copy the RAM: the copy is a file that no QEMU ever had open for writing, without its empty pages."""
    with ram.open("rb") as source, (new / "ram").open("w+b") as copy:
        copy_sparse(source.fileno(), copy.fileno())
        # Forks open it for writing although they never write it: QEMU before 8.2 can't do else.
        os.fchmod(copy.fileno(), 0o444 if host.read_only_ram else 0o666)
        manifest = {
            "inputs": shape.inputs,
            "sentinel": sentinel.hex(),
            "state": hashlib.sha256((new / "state").read_bytes()).hexdigest(),
            "ram": digest(copy.fileno()),
            "identity": [*identity(copy.fileno()), host.boot_id],
        }
    write_manifest(new, manifest)


def _stand_in(config: VmConfig, folder: VmFolder, stack: ExitStack) -> VmConfig:
    """The same devices with nothing behind them, so that what is saved knows nothing of the start that caused it."""
    networks = []
    for network in config.networks:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        networks.append(replace(network, fd=theirs.fileno()))
        ours.setblocking(False)
    disks = tuple(Disk(stand_in_image(disk, folder.path), read_only=disk.read_only) for disk in config.disks)
    return replace(config, disks=disks, networks=tuple(networks), boot_log=None)


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Be the only process that makes what `path` is the lock of. Raises `BootError` after three minutes' wait."""
    with path.open("ab") as lock:
        try:
            async with asyncio.timeout(_LOCK_LIMIT):
                while True:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise BootError(
                f"another process has been making the base VM for {_LOCK_LIMIT:g} s", hint="--no-fork boots without one"
            ) from error
        yield
