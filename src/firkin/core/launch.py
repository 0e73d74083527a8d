"""From an image and options to a running container: storage, VM, mounts, first process; undone in reverse if any step fails."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

from firkin import faults
from firkin.core.lowering import lower, resolve_stop_signal
from firkin.core.option_inputs import OptionInputs, container_options
from firkin.core.rootfs_mounts import root_mounts
from firkin.core.starting import start_process
from firkin.core.stdio import StdioSpec
from firkin.oci import ImageStore
from firkin.types import ContainerId, ProcessId, StateDirs
from firkin.vmm import VirtualMachine

if TYPE_CHECKING:
    from firkin.core.container import AsyncContainer
    from firkin.core.options import ContainerOptions
    from firkin.core.spec import RuntimeSpec

__all__ = ["launch"]

_T = TypeVar("_T", bound="AsyncContainer")
_IMAGE_READY = faults.declare("launch.image-ready", "the root filesystem image is leased, there is no VM yet")
_VM_READY = faults.declare("launch.vm-ready", "the VM answers, nothing is mounted in it")
_STARTED = faults.declare("launch.started", "the first process runs, nobody waits for it yet")


async def launch(
    kind: type[_T],
    image: str,
    command: Sequence[str],
    *,
    name: str | None,
    dirs: StateDirs | None,
    options: OptionInputs,
) -> _T:
    """Start a container and make a `kind` of it. See `AsyncContainer.launch` for the meaning and the errors."""
    given: OptionInputs = {**options, "command": tuple(command)}
    chosen = container_options(**given)
    id = ContainerId(name) if name is not None else ContainerId(secrets.token_hex(6))
    async with AsyncExitStack() as stack:
        container = await _launch(kind, image, id, chosen, dirs or StateDirs.default(), stack)
        container.own(stack.pop_all())
    return container


async def _launch(
    kind: type[_T],
    image_name: str,
    id: ContainerId,
    options: ContainerOptions,
    dirs: StateDirs,
    stack: AsyncExitStack,
) -> _T:
    began = time.perf_counter()
    store = ImageStore(dirs)
    image = store.resolve(image_name)
    prepared = prepare(options, image=image, container_id=id, dirs=dirs, rootfs=stack.enter_context(store.rootfs(image, options.disk)).path)
    imaged = time.perf_counter()
    faults.point(_IMAGE_READY)
    vm = await VirtualMachine.start(prepared.config, name=id, dirs=dirs, fork=options.fork)
    stack.push_async_callback(vm.aclose)
    vm.timings.record("image", (imaged - began) * 1e3)
    faults.point(_VM_READY)
    with vm.timings.phase("process"):
        process = await start_process(
            vm,
            id,
            ProcessId("init"),
            prepared.spec.to_json(),
            StdioSpec(options.stdin, options.stdout, options.stderr, options.terminal),
            pty=options.pty_size,
            program=prepared.spec.process.args[0],
            before=tuple(vm.agent.submit(request) for request in prepared.requests(vm)),
        )
    stack.push_async_callback(process.aclose)
    faults.point(_STARTED)
    return kind(id=id, image=image, options=options, prepared=prepared, vm=vm, process=process)
