"""From an image and options to a running container: storage, VM, mounts, first process; undone in reverse if any step
fails."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from firkin import faults
from firkin.core.assembly import assemble
from firkin.core.beginning import Beginning, Machine, begin
from firkin.core.limiting import before_start
from firkin.core.lowering import resolve_stop_signal
from firkin.core.mounted_disks import hold_disks
from firkin.core.name_files import name_requests
from firkin.core.option_inputs import OptionInputs
from firkin.core.parking import rest_of
from firkin.core.starting import start_process
from firkin.core.stdio import StdioSpec
from firkin.oci.ensure import ensure
from firkin.types import ProcessId, StateDirs
from firkin.vmm import VirtualMachine

if TYPE_CHECKING:
    from firkin.core.container import AsyncContainer
    from firkin.core.process import AsyncProcess
    from firkin.oci.registry.progress import Progress

__all__ = ["finish", "launch"]

_T = TypeVar("_T", bound="AsyncContainer")
_VM_READY = faults.declare("launch.vm-ready", "the VM answers, nothing is mounted in it")
_STARTED = faults.declare("launch.started", "the first process runs, nobody waits for it yet")


async def launch(
    kind: type[_T],
    image: str,
    command: Sequence[str],
    *,
    name: str | None,
    dirs: StateDirs | None,
    progress: AbstractContextManager[Progress] | None,
    options: OptionInputs,
) -> _T:
    """Start a container and make a `kind` of it. See `AsyncContainer.launch` for the meaning and the errors."""
    with begin(image, command, name=name, dirs=dirs, options=options) as begun:
        return await finish(kind, begun, progress)


async def finish(kind: type[_T], begun: Beginning, progress: AbstractContextManager[Progress] | None) -> _T:
    """Start what was begun, and make a `kind` of it. What has to be undone at its end is the container's then."""
    machine = begun.machine or await _fetched(begun, progress)
    if begun.options.warm:
        from firkin.core.warm_start import finish_warm

        return await finish_warm(kind, begun, machine)
    async with AsyncExitStack() as stack:
        stack.enter_context(begun.take())
        if machine.network is not None:
            machine.network.open(begun.folder.path)
        vm = await VirtualMachine.start(
            machine.config, folder=begun.folder, dirs=begun.dirs, fork=begun.options.fork, ahead=begun.ahead
        )
        stack.push_async_callback(vm.aclose)
        vm.timings.record("image", begun.image_ms)
        faults.point(_VM_READY)
        if begun.sockets is not None:
            stack.push_async_callback(begun.sockets.aclose)
        with vm.timings.phase("process"):
            process = await _start(vm, begun, machine)
        stack.push_async_callback(process.aclose)
        faults.point(_STARTED)
        container = await assemble(
            kind,
            begun.folder,
            stack,
            id=begun.id,
            image=machine.image,
            options=begun.options,
            spec=machine.prepared.spec,
            vm=vm,
            process=process,
            stop_signal=resolve_stop_signal(begun.options, machine.image.config),
            network=machine.network,
            sockets=begun.sockets,
            dirs=begun.dirs,
        )
        container.own(stack.pop_all())
    return container


async def _fetched(begun: Beginning, progress: AbstractContextManager[Progress] | None) -> Machine:
    """The machine of what is to be pulled, converted or waited for first."""
    options = begun.options
    pulled = await ensure(
        begun.store,
        begun.image,
        policy=options.pull,
        platform=options.platform,
        convert=options.disk,
        progress=progress,
    )
    return begun.settle(pulled, await hold_disks(options, begun.folder, begun.dirs, begun.stack))


async def _start(vm: VirtualMachine, begun: Beginning, machine: Machine) -> AsyncProcess:
    """Everything between a fresh VM and a running process, in one go; but for relayed sockets, which come before the
    start."""
    options, prepared, emulation = begun.options, machine.prepared, machine.emulation
    spec, agent = prepared.spec, vm.agent
    before = (
        agent.submit(vm.resume_message(hostname=spec.hostname)),
        *vm.submit_networks(),
        *(
            agent.mount(mount.type, mount.source, mount.destination, options=mount.options, mkdir=True)
            for mount in prepared.guest_mounts
        ),
        *map(agent.submit, name_requests(options, spec.root.path, spec.hostname)),
        *(emulation.calls(agent) if emulation else ()),
    )
    # A fork has one made already.
    rest = rest_of(spec) if vm.forked else None
    sockets = (partial(begun.sockets.start, vm, begun.id),) if begun.sockets else ()
    return await start_process(
        vm,
        begun.id,
        ProcessId("init"),
        (rest or spec).to_json(),
        StdioSpec(options.stdin, options.stdout, options.stderr, options.terminal),
        pty=options.pty_size,
        program=spec.process.args[0],
        before=before,
        parked=rest is not None,
        created=before_start(vm, begun.id, options, *sockets),
    )
