"""From an image and options to a running container: storage, VM, mounts, first process; undone in reverse if any step
fails."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

from firkin import faults
from firkin.core.live import publish
from firkin.core.lowering import resolve_stop_signal
from firkin.core.mounted_disks import hold_disks
from firkin.core.name_files import name_requests
from firkin.core.networking import open_network
from firkin.core.option_inputs import OptionInputs, container_options
from firkin.core.owner import Owner
from firkin.core.prepare import prepare
from firkin.core.seccomp_cache import container_program
from firkin.core.starting import start_process
from firkin.core.stdio import StdioSpec
from firkin.core.unserved import refuse_unserved
from firkin.oci import ImageStore
from firkin.oci.ensure import ensure
from firkin.oci.rootfs import OciBundle
from firkin.types import ContainerId, ProcessId, StateDirs
from firkin.vminitd.control import ControlServer
from firkin.vmm import VirtualMachine, VmFolder

if TYPE_CHECKING:
    from firkin.core.container import AsyncContainer
    from firkin.core.emulation import Emulation
    from firkin.core.options import ContainerOptions
    from firkin.core.prepare import PreparedVm
    from firkin.core.process import AsyncProcess
    from firkin.oci.image import Image
    from firkin.oci.registry.progress import Progress

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
    progress: AbstractContextManager[Progress] | None,
    options: OptionInputs,
) -> _T:
    """Start a container and make a `kind` of it. See `AsyncContainer.launch` for the meaning and the errors."""
    chosen = container_options(command, **options)
    refuse_unserved(chosen)
    id = ContainerId(name) if name is not None else ContainerId(secrets.token_hex(6))
    async with AsyncExitStack() as stack:
        container = await _launch(kind, image, id, chosen, dirs or StateDirs.default(), progress, stack)
        container.own(stack.pop_all())
    return container


async def _launch(
    kind: type[_T],
    image_name: str,
    id: ContainerId,
    options: ContainerOptions,
    dirs: StateDirs,
    progress: AbstractContextManager[Progress] | None,
    stack: AsyncExitStack,
) -> _T:
    began = time.perf_counter()
    # First of all, so that a name in use costs nothing; `start` takes the folder over.
    folder = VmFolder.claim(dirs, id)
    stack.callback(folder.remove)
    image, prepared, emulation = await _prepared(image_name, id, options, folder, dirs, progress, stack)
    imaged = time.perf_counter()
    faults.point(_IMAGE_READY)
    config = emulation.config if emulation else prepared.config
    network = open_network(options, folder.path, stack)
    if network is not None:
        config = network.joined(config)
    vm = await VirtualMachine.start(config, folder=folder, dirs=dirs, fork=options.fork)
    stack.push_async_callback(vm.aclose)
    vm.timings.record("image", (imaged - began) * 1e3)
    faults.point(_VM_READY)
    with vm.timings.phase("process"):
        process = await _start(vm, id, options, prepared, emulation)
    stack.push_async_callback(process.aclose)
    faults.point(_STARTED)
    container = kind(
        id=id,
        image=image,
        options=options,
        spec=prepared.spec,
        vm=vm,
        process=process,
        stop_signal=resolve_stop_signal(options, image.config),
        network=network,
    )
    owner = Owner(container)
    await stack.enter_async_context(ControlServer(folder.path, owner.handlers()))
    await stack.enter_async_context(owner)
    publish(folder.path, container.describe())
    return container


async def _start(
    vm: VirtualMachine, id: ContainerId, options: ContainerOptions, prepared: PreparedVm, emulation: Emulation | None
) -> AsyncProcess:
    """Everything between a fresh VM and a running process, in one go."""
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
    return await start_process(
        vm,
        id,
        ProcessId("init"),
        spec.to_json(),
        StdioSpec(options.stdin, options.stdout, options.stderr, options.terminal),
        pty=options.pty_size,
        program=spec.process.args[0],
        before=before,
    )


async def _prepared(
    image_name: str,
    id: ContainerId,
    options: ContainerOptions,
    folder: VmFolder,
    dirs: StateDirs,
    progress: AbstractContextManager[Progress] | None,
    stack: AsyncExitStack,
) -> tuple[Image, PreparedVm, Emulation | None]:
    """The image, its root filesystem held by `stack`, and what to make of it."""
    pulled = await ensure(
        ImageStore(dirs),
        image_name,
        policy=options.pull,
        platform=options.platform,
        convert=options.disk,
        progress=progress,
    )
    assert pulled.rootfs is not None
    prepared = prepare(
        options,
        OciBundle(pulled.image),
        container_id=id,
        root_path=stack.enter_context(pulled.rootfs).path,
        disk_of=await hold_disks(options, folder, dirs, stack) if options.mounts else None,
        seccomp=container_program(options, cache=dirs.cache / "seccomp"),
    )
    return pulled.image, prepared, _emulation(prepared, options, dirs) if prepared.emulate else None


def _emulation(prepared: PreparedVm, options: ContainerOptions, dirs: StateDirs) -> Emulation:
    from firkin.core.emulation import announce, emulate

    emulation = emulate(prepared, dirs.cache / "emulators")
    if options.emulate is None:
        announce(prepared)
    return emulation
