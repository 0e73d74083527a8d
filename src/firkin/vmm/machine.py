"""A virtual machine: started, spoken to, stopped; nothing of it outlives its handle's process."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from firkin import faults
from firkin.errors import LinkError, VirtualMachineError
from firkin.types.state import StateDirs
from firkin.types.vsock import VsockPort
from firkin.vmm.assets import BootAssets, resolve_assets
from firkin.vmm.base import BaseVm, discard
from firkin.vmm.boot import Running, cold_boot, complete, is_transient_boot_failure, restore
from firkin.vmm.build import find_or_build
from firkin.vmm.closing import Closing
from firkin.vmm.config import VmConfig
from firkin.vmm.folder import VmFolder
from firkin.vmm.host import HostCapabilities, probe
from firkin.vmm.launch import Boot, Launched, Restore
from firkin.vmm.needs import Needs
from firkin.vmm.process import tail
from firkin.vmm.qmp import Qmp
from firkin.vmm.timings import Timings
from firkin.vmm.wiring import identify, wire

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from firkin.vminitd._generated import agent_pb2 as pb
    from firkin.vminitd.agent import Agent
    from firkin.vminitd.link import Link
    from firkin.vminitd.stream import Listener, Stream
    from firkin.vmm.head_start import HeadStart
    from firkin.vmm.saved import Saved

__all__ = ["VirtualMachine", "find_host"]

_log = logging.getLogger("firkin.vmm")
_STOPPING = faults.declare("stop.before-end", "the VM is to end: its process, sockets and folder are still there")


class VirtualMachine(Closing):
    """A running VM, made by `start`. An async context manager: leaving the block kills the VM and removes its folder.

    `agent` and `link` speak to the guest; the agent refuses what could run user code until `Resume` was answered (see
    `resume_message`). `timings` holds the phases of the start, `forked` whether it came from a base VM, `host` what
    it runs on.
    """

    def __init__(
        self,
        running: Running,
        folder: VmFolder,
        config: VmConfig,
        host: HostCapabilities,
        timings: Timings,
        forked: bool,
    ) -> None:
        from firkin.vminitd.agent import Agent

        self.link: Link = running.link
        self.agent: Agent = Agent(running.link)
        self.folder = folder
        self.config = config
        self.host = host
        self.timings = timings
        self.forked = forked
        self._running = running
        self._process = running.process
        self._stopping = False
        self._qmp = Qmp(folder)
        # What waits for the guest is to learn why it went, not only that it did.
        self._process.on_miss = lambda error: self.link.abort(LinkError(error.message, boot_log=error.boot_log))

    @classmethod
    async def start(
        cls,
        config: VmConfig,
        *,
        name: str | None = None,
        folder: VmFolder | None = None,
        dirs: StateDirs | None = None,
        fork: bool = True,
        ahead: HeadStart[BaseVm] | None = None,
    ) -> Self:
        """Start a VM and return once its agent has answered.

        `name` is unique among the live VMs of `dirs` (default: random). A claimed `folder` is taken over, also where
        the start fails. With `fork` the VM is a copy-on-write clone of a base VM of the same shape, which the first
        such start makes; without it the kernel boots. `ahead` is what `head_start` began with the same arguments.
        Raises `InvalidInputError`, `StateError` (the name is in use),
        `BootError`.
        """
        dirs = dirs or StateDirs.default()
        timings = ahead.timings if ahead else Timings()
        async with AsyncExitStack() as stack:
            own = folder or VmFolder.claim(dirs, name or f"vm-{secrets.token_hex(6)}")
            stack.callback(own.remove)
            if ahead:
                assets, host = ahead.assets, ahead.host
            else:
                with timings.phase("prepare"):
                    assets, host = await asyncio.to_thread(find_host, dirs, config)
            running, forked = await _start(dirs, own, config, host, assets, timings, fork, ahead)
            vm = cls(running, own, config, host, timings, forked)
            stack.pop_all()
        _log.debug("VM %s is up: %s", own.name, timings, extra={"vm": own.name, "milliseconds": timings.total})
        return vm

    @classmethod
    async def restore(
        cls,
        config: VmConfig,
        saved: Saved,
        *,
        name: str | None = None,
        folder: VmFolder | None = None,
        dirs: StateDirs | None = None,
        ahead: HeadStart[Saved] | None = None,
        wait: bool = True,
    ) -> Self:
        """As `start`, from a VM that was saved: `config` is as when it was, with the disks of now.

        User code stands still until a `Resume` that thaws. `ahead` is what `head_start_saved` began. Without `wait` it
        returns as soon as QEMU runs: calls may be submitted, and `answered` says how the restore went. Raises
        `StateError` where the host lacks what it needs.
        """
        dirs = dirs or StateDirs.default()
        timings = ahead.timings if ahead else Timings()
        async with AsyncExitStack() as stack:
            own = folder or VmFolder.claim(dirs, name or f"vm-{secrets.token_hex(6)}")
            stack.callback(own.remove)
            if ahead:
                host = ahead.host
            else:
                with timings.phase("prepare"):
                    _, host = await asyncio.to_thread(find_host, dirs, config)
                    saved.needs.check(Needs.of(config, host), saved.name)
            # Each clone reads the state from its beginning, so each has a descriptor of its own.
            with saved.path("state").open("rb") as state:
                start = Restore(saved.files["ram"], state.fileno(), saved.pages)
                launched = ahead.take() if ahead else None
                schema = saved.schema
                running = restore(own, config, host, start, saved.sentinel, timings, schema=schema, launched=launched)
            if wait:
                await running.answered()
            vm = cls(running, own, config, host, timings, forked=True)
            stack.pop_all()
        return vm

    async def answered(self) -> None:
        """Wait until the agent has answered. Raises `VirtualMachineError` where it does not."""
        await self._running.answered()

    @property
    def name(self) -> str:
        """Its folder's name: the container's id."""
        return self.folder.name

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """False once QEMU has ended, for whatever reason."""
        return self._process.running

    def boot_log_tail(self) -> str:
        """The last 4 KiB of the guest's console."""
        return tail(self._process.console)

    def resume_message(self, *, epoch: int = 1, hostname: str = "", thaw: bool = True) -> pb.Resume:
        """The first message of a fresh VM or fork: new randomness, the time of now, an own machine id."""
        from firkin.vminitd._generated import agent_pb2 as pb

        return pb.Resume(
            entropy=os.urandom(64),
            realtime_ns=time.time_ns(),
            hostname=hostname,
            machine_id=secrets.token_hex(16),
            epoch=epoch,
            thaw=thaw,
        )

    def submit_networks(self) -> tuple[Awaitable[object], ...]:
        """Submit the calls that make its network cards what the configuration says; to be awaited."""
        return tuple((identify if self.forked else wire)(self.agent, self.config))

    async def dial(self, port: int) -> Stream:
        """A stream to a program of the guest that listens on AF_VSOCK `port`.

        Raises `InvalidInputError` for a reserved port.
        """
        return await self.link.open(VsockPort.for_user(port))

    async def listen(self, port: int) -> Listener:
        """Take the guest's connections to AF_VSOCK `port`, until the listener is closed. Raises as `dial` does."""
        return self.link.listen(VsockPort.for_user(port))

    @property
    def ram(self) -> int:
        """A descriptor of the file that a fork's RAM began as; -1 where it booted."""
        return self._running.ram

    async def qmp(self, command: str, *, passing: int | None = None, **arguments: object) -> object:
        """QEMU's answer to a monitor command; `passing` is a descriptor that goes along.

        Raises `VirtualMachineError`.
        """
        if not self.running:
            raise self._process.death()
        return await self._process.or_death(self._qmp.execute(command, arguments or None, fd=passing))

    async def pause(self) -> None:
        """Stop the processors: nothing in the guest runs, and its silence is no fault, until `resume`."""
        self.link.paused = True
        await self.qmp("stop")

    async def resume(self) -> None:
        """Let the processors run on."""
        await self.qmp("cont")
        self.link.paused = False

    async def stop(self, grace: float = 10.0) -> None:
        """Ask the agent to power the VM off; kill it where it still runs after `grace` seconds. Then as `aclose`."""
        try:
            async with asyncio.timeout(grace):
                await self.agent.poweroff()
                await self._process.wait()
        except (TimeoutError, LinkError):
            # It ended under the call, as it should, or does not answer: both end below.
            pass
        finally:
            await self.aclose()

    async def why_lost(self, error: LinkError) -> VirtualMachineError:
        """The error to raise in place of `error`, which ended the link: how QEMU ended, where that is the reason."""
        if self._stopping:
            return error
        # The socket's end is seen before the process's.
        await asyncio.wait({self._process.ended}, timeout=1.0)
        return error if self._process.running else self._process.death()

    async def wait_closed(self) -> None:
        """Wait until QEMU has ended."""
        await self._process.wait()

    async def kill(self) -> None:
        """End QEMU at once; the folder stays until `aclose`."""
        await self._process.end()

    async def aclose(self) -> None:
        """Kill the VM and remove its folder. Safe to call again."""
        self._stopping = True
        faults.point(_STOPPING)
        try:
            self.link.abort(LinkError(f"the VM {self.name} was stopped"))
            self._running.release()
            await self._qmp.aclose()
        finally:
            try:
                await self._process.end()
            finally:
                self.folder.remove()


def find_host(dirs: StateDirs, config: VmConfig) -> tuple[BootAssets, HostCapabilities]:
    """What a VM of `config` boots, and what it runs on. Blocks; raises as `VirtualMachine.start`."""
    assets = resolve_assets(dirs, config.kernel)
    host = probe(dirs, assets, accel=config.accel)
    if config.nested:
        from firkin.vmm.nested import check_nested

        check_nested(host)
    return assets, host


async def _start(
    dirs: StateDirs,
    folder: VmFolder,
    config: VmConfig,
    host: HostCapabilities,
    assets: BootAssets,
    timings: Timings,
    fork: bool,
    ahead: HeadStart[BaseVm] | None,
) -> tuple[Running, bool]:
    if fork:
        try:
            with ahead.base if ahead else await find_or_build(dirs, config, host, assets, timings) as base:
                launched = ahead.take() if ahead else None
                return await _restore(folder, config, host, base, launched, timings), True
        except VirtualMachineError as error:
            _fall_back(error)
    return await cold_boot(folder, config, host, Boot(assets), timings), False


async def _restore(
    folder: VmFolder,
    config: VmConfig,
    host: HostCapabilities,
    base: BaseVm,
    launched: Launched | None,
    timings: Timings,
) -> Running:
    try:
        saved = Restore(base.ram, base.state)
        running = restore(folder, config, host, saved, base.sentinel, timings, launched=launched)
        await complete(running, folder, config, timings)
        return running
    except VirtualMachineError as error:
        if not is_transient_boot_failure(error):
            # What QEMU refuses once it refuses again: the next start makes another.
            discard(base.folder)
        raise


_warned = False


def _fall_back(error: VirtualMachineError) -> None:
    """Say once that forks don't work here; the user sees slow starts otherwise, and no reason."""
    global _warned
    _log.log(logging.DEBUG if _warned else logging.WARNING, "can't fork a base VM, booting instead: %s", error)
    _warned = True
