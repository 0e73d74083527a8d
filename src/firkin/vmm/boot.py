"""Bringing one VM up to the answer of its agent, and telling a failure that may pass from one that will not."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from firkin import faults
from firkin.errors import BootError, FirkinError, LinkError, VirtualMachineError
from firkin.quiet import quiet
from firkin.vminitd.agent import Agent, preload
from firkin.vminitd.link import INITIAL_SENTINEL, Link
from firkin.vmm.config import VmConfig
from firkin.vmm.folder import VmFolder
from firkin.vmm.host import HostCapabilities
from firkin.vmm.launch import Boot, Launched, Restore, launch
from firkin.vmm.process import QemuProcess, tail
from firkin.vmm.share_plug import plug
from firkin.vmm.timings import Timings

__all__ = ["BOOT_LIMIT", "Running", "cold_boot", "complete", "is_transient_boot_failure", "restore"]

_log = logging.getLogger("firkin.vmm.boot")
_READY = faults.declare("boot.ready", "the agent has answered, nobody has the VM yet")

# Seconds until the agent must have answered: a boot takes 2 to 5 s under TCG on an idle host, a restore a tenth of one.
BOOT_LIMIT = 45.0
RESTORE_LIMIT = 15.0
_TRIES = 2
# The reason why a try failed, or a line of the guest's console, by which a failure is known to come and go.
_TRANSIENT = (
    "no answer to the HELLO within",
    "Resource temporarily unavailable",
    "could not calculate TSC khz",
    "Unable to calibrate against PIT",
)


@dataclass(slots=True)
class Running:
    """A VM whose QEMU runs; its agent has answered once `answered` returns.

    Calls may be submitted on `link` before: they travel behind the HELLO. `ram`: of a fork, an own descriptor of the
    file that its RAM began as, else -1.
    """

    process: QemuProcess
    link: Link
    launched: Launched
    greeting: asyncio.Future[None]
    ram: int = -1

    async def answered(self) -> None:
        """Wait for the agent. Raises `VirtualMachineError` where it does not come, having left no process."""
        await self.or_end(asyncio.shield(self.greeting))

    async def or_end(self, work: Awaitable[None]) -> None:
        """Wait for `work`; where it fails, or the wait is cancelled, no process is left."""
        try:
            await work
        except BaseException:
            self.release()
            await self.process.end()
            raise

    def release(self) -> None:
        """Give up what leads to QEMU, which its end is to follow, and `ram`. Safe to call again."""
        self.greeting.cancel()
        self.link.abort(LinkError("the VM was given up"))
        self.launched.close()
        if self.ram >= 0:
            os.close(self.ram)
            self.ram = -1


def is_transient_boot_failure(error: FirkinError) -> bool:
    """Whether another try may succeed: after a hang, or a shortage that passes; never after a mistake of somebody's."""
    if not isinstance(error, VirtualMachineError):
        return False
    if isinstance(error, BootError) and error.transient:
        return True
    texts = (error.message, error.boot_log)
    return any(sign in text for sign in _TRANSIENT for text in texts)


async def cold_boot(
    folder: VmFolder,
    config: VmConfig,
    host: HostCapabilities,
    start: Boot,
    timings: Timings,
    *,
    limit: float = BOOT_LIMIT,
) -> Running:
    """Boot and wait for the agent, at most `limit` seconds a try; a second try follows a transient failure.

    Raises `BootError`, with its cause and the tail of the boot log, having left no process behind.
    """
    for left in reversed(range(_TRIES)):
        try:
            running = _start(folder, config, host, start, timings, INITIAL_SENTINEL, limit)
            await running.answered()
            running.launched.drop_shares()
            return running
        except VirtualMachineError as error:
            failure = error
        if not left or not is_transient_boot_failure(failure):
            break
        _log.warning("the VM %s did not come up, trying again: %s", folder.name, failure)
    transient = is_transient_boot_failure(failure)
    message = f"the VM did not boot: {failure.message}"
    raise BootError(message, transient=transient, hint=failure.hint, boot_log=failure.boot_log) from failure


def restore(
    folder: VmFolder,
    config: VmConfig,
    host: HostCapabilities,
    saved: Restore,
    sentinel: bytes,
    timings: Timings,
    *,
    schema: bytes | None = None,
    launched: Launched | None = None,
) -> Running:
    """Let a saved VM run on, its agent waiting for `sentinel` and speaking `schema` (see `Link.begin`).

    `launched` is its QEMU where it was spawned already. Raises `VirtualMachineError`.
    """
    running = _start(folder, config, host, launched or saved, timings, sentinel, RESTORE_LIMIT, schema)
    running.ram = os.dup(saved.ram)
    return running


async def complete(running: Running, folder: VmFolder, config: VmConfig, timings: Timings) -> None:
    """Wait until a restored VM's agent has answered and has its shares. Raises as `Running.answered`."""
    await running.answered()
    if config.shares:
        with timings.phase("shares"):
            shares = plug(folder, Agent(running.link), config.shares, running.launched.shares)
            await running.or_end(running.process.or_death(shares))
        running.launched.drop_shares()


def _start(
    folder: VmFolder,
    config: VmConfig,
    host: HostCapabilities,
    start: Boot | Restore | Launched,
    timings: Timings,
    sentinel: bytes,
    limit: float,
    schema: bytes | None = None,
) -> Running:
    if isinstance(start, Launched):
        launched = start
    else:
        with timings.phase("spawn"):
            launched = launch(folder, config, host, start)
    try:
        process = launched.watched()
        link = Link.begin(
            launched.agent,
            sentinel=sentinel,
            schema=schema,
            boot_log=lambda: tail(launched.console),
            greeted=launched.greeted,
        )
        phase = timings.phase("boot" if isinstance(start, Boot) else "restore")
        # Whoever waits for the answer sees its error.
        greeting = quiet(asyncio.ensure_future(_greet(process, link, phase, limit)))
    except BaseException:
        launched.end()
        raise
    return Running(process, link, launched, greeting)


async def _greet(process: QemuProcess, link: Link, phase: AbstractContextManager[None], limit: float) -> None:
    with phase:
        # The HELLO is under way: while QEMU starts the messages are imported, which takes about as long.
        preload()
        await process.or_death(_answer(link, process, limit))
    faults.point(_READY)


async def _answer(link: Link, process: QemuProcess, limit: float) -> None:
    try:
        await link.handshake(limit)
    except LinkError:
        # A link that ends at once means that QEMU is ending, which says why: give it a moment to be reaped.
        if process.running and link.error is not None:
            await asyncio.wait({process.ended}, timeout=1.0)
        raise
