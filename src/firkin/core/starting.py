"""Starting a process in the guest: its streams, the call that creates it, the call that waits for it, in one go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from firkin.core.exit import ExitStatus
from firkin.core.process import AsyncProcess, exec_error, exit_status
from firkin.core.stdio import Channels, StdioSpec
from firkin.errors import AgentError, FirkinError, LinkError
from firkin.quiet import quiet
from firkin.types import ContainerId, ProcessId, PtySize

if TYPE_CHECKING:
    from firkin.vminitd._generated import agent_pb2 as pb
    from firkin.vmm.machine import VirtualMachine

__all__ = ["adopt_process", "start_process"]

_log = logging.getLogger(__name__)
_CREATE_LIMIT = 60.0
_ABANDON_LIMIT = 10.0


async def start_process(
    vm: VirtualMachine,
    container: ContainerId,
    id: ProcessId,
    spec: bytes,
    stdio: StdioSpec,
    *,
    pty: PtySize,
    program: str,
    before: tuple[Awaitable[object], ...] = (),
    parked: bool = False,
    created: Callable[[], Awaitable[None]] | None = None,
) -> AsyncProcess:
    """Create and start process `id` from `spec` (JSON, see `CreateProcess`), its streams joined as `stdio` says.

    `parked`: `spec` is what the VM's parked container lacks (`firkin.core.parking`). `before` are calls already
    submitted whose answers come first (a resume, mounts): all travel together, the guest works in their order, and the
    first failure is raised. `created` is called between the making of the process, when the container's root is there
    with its mounts, and its start. Raises `ExecError` where `program` can't be executed, `AgentError`,
    `VirtualMachineError`.
    """
    channels = Channels(stdio)
    stdin, stdout, stderr = channels.listen(vm.link)
    made = vm.agent.create_process(
        container,
        id,
        spec,
        stdin_port=stdin,
        stdout_port=stdout,
        stderr_port=stderr,
        start=created is None,
        pty_columns=pty.columns if stdio.terminal else 0,
        pty_rows=pty.rows if stdio.terminal else 0,
        parked=parked,
        timeout=_CREATE_LIMIT,
    )
    ended = vm.agent.wait_process(container, id)
    # Whoever waits for the process sees its error.
    exit = quiet(asyncio.ensure_future(_exit(ended, vm, container, id)))
    try:
        for call in before:
            await call
        answer = await made
        if created is not None:
            await created()
            answer = await vm.agent.start_process(container, id, timeout=_CREATE_LIMIT)
        started = cast("pb.ProcessStarted", answer)
        await channels.connect()
    except BaseException as error:
        exit.cancel()
        await asyncio.gather(exit, made, *before, return_exceptions=True)
        await channels.aclose()
        if isinstance(error, AgentError) and (seen := exec_error(error, program)) is not error:
            raise seen from error
        if isinstance(error, asyncio.CancelledError) and id != "init":
            await _abandon(vm, container, id)
        raise
    return AsyncProcess(vm.agent, container, id, started.pid, channels, exit)


async def _abandon(vm: VirtualMachine, container: ContainerId, id: ProcessId) -> None:
    """End a process of which nobody has a handle: that it runs may have been said just as its start was given up."""
    if vm.link.error is not None or vm.link.paused:
        return
    # The agent knows it no more where the start was given up in time.
    with suppress(FirkinError):
        await vm.agent.kill_process(container, id, 9, timeout=_ABANDON_LIMIT)
        await vm.agent.wait_process(container, id, timeout=_ABANDON_LIMIT)
        await vm.agent.delete_process(container, id, timeout=_ABANDON_LIMIT)


async def adopt_process(
    vm: VirtualMachine, container: ContainerId, id: ProcessId, pid: int, stdio: StdioSpec
) -> AsyncProcess:
    """A handle of a process that runs already, its streams new ones as `stdio` says (see `AttachProcess`)."""
    channels = Channels(stdio)
    ports = channels.listen(vm.link)
    exit = quiet(asyncio.ensure_future(_exit(vm.agent.wait_process(container, id), vm, container, id)))
    try:
        if any(ports):
            stdin, stdout, stderr = ports
            await vm.agent.attach_process(container, id, stdin_port=stdin, stdout_port=stdout, stderr_port=stderr)
            await channels.connect()
    except BaseException:
        exit.cancel()
        await asyncio.gather(exit, return_exceptions=True)
        await channels.aclose()
        raise
    return AsyncProcess(vm.agent, container, id, pid, channels, exit)


async def _exit(
    answer: Awaitable[pb.ProcessExit], vm: VirtualMachine, container: ContainerId, process: ProcessId
) -> ExitStatus:
    try:
        exit = await answer
    except LinkError as error:
        raise await vm.why_lost(error) from error
    _log.debug("process %s of container %s has ended", process, container)
    kind = exit.WhichOneof("status")
    return exit_status(
        exit.code if kind != "signal" else None,
        exit.signal if kind == "signal" else None,
        exit.oom_killed,
        exit.exited_at_ns,
    )
