"""A container started in a clone of a warm image: its root is mounted, what is left is its process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from firkin.core.assembly import assemble
from firkin.core.limiting import before_start
from firkin.core.lowering import resolve_stop_signal
from firkin.core.name_files import name_requests
from firkin.core.parking import program_of
from firkin.core.starting import start_process
from firkin.core.stdio import StdioSpec
from firkin.core.warm import GUEST_ID, WarmUp, find_or_warm, joined, lower_warm, warm_spec
from firkin.types import ProcessId
from firkin.vmm import VirtualMachine

if TYPE_CHECKING:
    from firkin.core.beginning import Beginning, Machine
    from firkin.core.container import AsyncContainer
    from firkin.core.networking import ContainerNetwork
    from firkin.types import ContainerId
    from firkin.vmm.saved import Saved

__all__ = ["finish_warm", "start_in"]

_T = TypeVar("_T", bound="AsyncContainer")


async def finish_warm(kind: type[_T], begun: Beginning, machine: Machine) -> _T:
    """As `firkin.core.launch.finish`, in a clone of the image's warm image, which is made first where there is none."""
    warmed = begun.warmed or lower_warm(machine.image, machine.prepared.rootfs_device.path, begun.options, begun.dirs)
    async with AsyncExitStack() as stack:
        stack.enter_context(begun.take())
        ahead = begun.warm_ahead
        saved = ahead.base if ahead else (await find_or_warm(warmed))[0]
        stack.callback(saved.close)
        config = replace(joined(warmed, machine.network), disks=saved.disks())
        vm = await VirtualMachine.restore(config, saved, folder=begun.folder, dirs=begun.dirs, ahead=ahead, wait=False)
        stack.push_async_callback(vm.aclose)
        if machine.network is not None:
            machine.network.open(begun.folder.path)
        vm.timings.record("image", begun.image_ms)
        # What starts the process travels behind the HELLO.
        answered = asyncio.ensure_future(vm.answered())
        container = await start_in(kind, (vm, machine.network), begun.id, warmed, saved, stack, before=(answered,))
        container.own(stack.pop_all())
    return container


async def start_in(
    kind: type[_T],
    begun: tuple[VirtualMachine, ContainerNetwork | None],
    id: ContainerId,
    warmed: WarmUp,
    saved: Saved,
    stack: AsyncExitStack,
    *,
    before: tuple[Awaitable[object], ...] = (),
) -> _T:
    """The container `id` in a clone of the warm image of `warmed`. `before`: as in `start_process`."""
    vm, network = begun
    spec, options, epoch = warm_spec(warmed, id), warmed.options, saved.epoch + 1
    rest = program_of(spec, saved.document["rooted"])
    began, others = time.perf_counter(), vm.timings.total
    process = await start_process(
        vm,
        GUEST_ID,
        ProcessId("init"),
        (rest or spec).to_json(),
        StdioSpec(options.stdin, options.stdout, options.stderr, options.terminal),
        pty=options.pty_size,
        program=spec.process.args[0],
        parked=rest is not None,
        created=before_start(vm, GUEST_ID, options),
        before=(
            *before,
            vm.agent.submit(vm.resume_message(epoch=epoch, hostname=spec.hostname)),
            *vm.submit_networks(),
            *map(vm.agent.submit, name_requests(options, spec.root.path, spec.hostname)),
        ),
    )
    # Phases that ended meanwhile are not counted twice.
    vm.timings.record("process", (time.perf_counter() - began) * 1e3 - (vm.timings.total - others))
    stack.push_async_callback(process.aclose)
    return await assemble(
        kind,
        vm.folder,
        stack,
        id=id,
        image=warmed.image,
        options=options,
        spec=spec,
        vm=vm,
        process=process,
        stop_signal=resolve_stop_signal(options, warmed.image.config),
        dirs=warmed.dirs,
        guest_id=GUEST_ID,
        epoch=epoch,
        network=network,
    )
