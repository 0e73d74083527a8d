"""Warm images: a VM saved with an image's root mounted, and perhaps a command run before; its starts are forks of it.

One is a folder `cache/warm/<key>/` as `firkin.vmm.saved` describes; what a start of one saves is the mount, the page
cache and whatever the command left. `cache/warm-recipes/` remembers the command for each image's name, so that a warm
image that is made again, because the image changed, is made the same way.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from firkin import faults
from firkin.core.lowering import renamed, resolve_hostname
from firkin.core.name_files import name_requests
from firkin.core.networking import open_network
from firkin.core.option_inputs import OptionInputs, container_options
from firkin.core.parking import program_of, root_mounts_of
from firkin.core.prepare import prepare
from firkin.core.seccomp_cache import container_program
from firkin.core.spec import RuntimeSpec
from firkin.core.starting import start_process
from firkin.core.stdio import StdioSpec
from firkin.errors import (
    FirkinError,
    FirkinTimeoutError,
    ImageError,
    InvalidInputError,
    NotFoundError,
    StateError,
    VirtualMachineError,
)
from firkin.oci import ImageStore
from firkin.oci.ensure import ensure
from firkin.oci.rootfs import OciBundle
from firkin.types import ContainerId, ProcessId, StateDirs, Stdio
from firkin.vmm import VirtualMachine, VmFolder
from firkin.vmm.assets import BootAssets
from firkin.vmm.base import Shape, collect, discard
from firkin.vmm.build import locked
from firkin.vmm.first_pages import record_first_pages
from firkin.vmm.head_start import HeadStart, head_start_saved, recall_host
from firkin.vmm.host import HostCapabilities, boot_id
from firkin.vmm.machine import find_host
from firkin.vmm.save import save
from firkin.vmm.saved import Saved, open_saved, read_manifest

if TYPE_CHECKING:
    from firkin.core.networking import ContainerNetwork
    from firkin.core.options import ContainerOptions
    from firkin.core.prepare import PreparedVm
    from firkin.oci.image import Image
    from firkin.oci.registry.progress import Progress
    from firkin.vmm import VmConfig

__all__ = [
    "GUEST_ID",
    "SHELL",
    "WarmInfo",
    "WarmUp",
    "clone",
    "find_or_warm",
    "joined",
    "lower_warm",
    "prepare_warm",
    "rehearse",
    "warm_head_start",
    "warm_image_async",
    "warm_spec",
    "warm_up",
]

_log = logging.getLogger("firkin.core.warm")
_BUILT = faults.declare("warm.before-publish", "a warm image is whole under a temporary name")
_FORMAT = 5
_MOST, _MOST_BYTES = 8, 8 << 30
# What the agent calls the container of every start; its root is mounted when the VM is saved.
GUEST_ID = ContainerId("warm")
_WARM_UP = ContainerId("warm-up")
# Another one: the command that the warm image began with may still be there, under its own name.
_REHEARSAL = ContainerId("rehearsal")
_LIMIT = 300.0
_SETTLE = 0.5
_OTHERS = frozenset({"bind", "file", "virtiofs", "volume", "image", "block"})
# A process that closed its output and means to end does so within this.
_ENDING = 0.5
# What most programs of an image need, and the one that is run most.
_EVERYONES = (
    "/bin/sh",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/aarch64-linux-gnu/libc.so.6",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
    "/lib64/libc.so.6",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
)
# Of an image without a command to run: its shell and C library get into the page cache. And what rehearses.
SHELL = ("/bin/sh", "-c", ":")


@dataclass(frozen=True, slots=True)
class WarmInfo:
    """A warm image: what `firkin image warm` prints. `made` is false where it was there already."""

    image: str
    key: str
    command: tuple[str, ...]
    made: bool


class WarmUp(NamedTuple):
    """An image lowered for the VM that a warm image of it is a saved one of."""

    image: Image
    options: ContainerOptions
    prepared: PreparedVm
    dirs: StateDirs

    @property
    def recipe(self) -> Path:
        """Where the command that runs first is remembered."""
        name = hashlib.sha256(str(self.image).encode()).hexdigest()[:32]
        return self.dirs.cache / "warm-recipes" / f"{name}.json"


async def warm_image_async(
    image: str,
    run: Sequence[str] = (),
    *,
    dirs: StateDirs | None = None,
    progress: AbstractContextManager[Progress] | None = None,
    **options: Unpack[OptionInputs],
) -> WarmInfo:
    """Make a warm image of `image`, for starts with these `options` and `warm=True`.

    `run` is a command that runs first, to its end or until it closes its standard output: a server that stays then
    runs in every start. It is remembered for `image`, whenever its warm image has to be made again. Raises as
    `AsyncContainer.launch`, and `ImageError` where the command fails.
    """
    chosen = container_options((), **options)
    async with AsyncExitStack() as stack:
        warmed = await prepare_warm(image, chosen, dirs or StateDirs.default(), progress, stack)
        saved, made = await find_or_warm(warmed, tuple(run))
        # Not before it has worked once.
        _remember(warmed, run)
        with saved:
            return WarmInfo(str(warmed.image), saved.folder.name, tuple(run), made)


async def prepare_warm(
    image_name: str,
    options: ContainerOptions,
    dirs: StateDirs,
    progress: AbstractContextManager[Progress] | None,
    stack: AsyncExitStack,
) -> WarmUp:
    """The image, its root filesystem held by `stack`. Raises `InvalidInputError` for options that need another VM."""
    pulled = await ensure(
        ImageStore(dirs),
        image_name,
        policy=options.pull,
        platform=options.platform,
        convert=options.disk,
        progress=progress,
    )
    assert pulled.rootfs is not None
    return lower_warm(pulled.image, stack.enter_context(pulled.rootfs).path, options, dirs)


def lower_warm(image: Image, root: Path, options: ContainerOptions, dirs: StateDirs) -> WarmUp:
    """`image`, whose root filesystem is at `root`, lowered for its warm image and the starts from it.

    Raises `InvalidInputError` for options that need another VM.
    """
    for what, given in (
        ("a writable layer", options.writable_layer),
        ("live shares, volumes or disks", [mount for mount in options.mounts if mount.kind in _OTHERS]),
        ("live shares", (*options.file_mounts, *options.virtiofs_shares)),
        ("socket relays", options.sockets),
    ):
        if given:
            raise InvalidInputError(f"a warm image can't have {what}", value=given, hint="leave --warm out")
    prepared = prepare(
        options,
        OciBundle(image),
        container_id=GUEST_ID,
        root_path=root,
        seccomp=lambda chosen: container_program(chosen, cache=dirs.cache / "seccomp"),
    )
    if prepared.emulate:
        raise InvalidInputError("a warm image can't be of another architecture", value=image, hint="leave --warm out")
    return WarmUp(image, options, prepared, dirs)


async def find_or_warm(warmed: WarmUp, command: tuple[str, ...] | None = None) -> tuple[Saved, bool]:
    """The warm image, opened, and whether it was made just now; while another process makes it, wait for that.

    `command` is what must have run first; unset: whatever ran in the one that is there. Raises `StateError`.
    """
    root = warmed.dirs.make("cache", "warm")
    assets, host = await asyncio.to_thread(find_host, warmed.dirs, warmed.prepared.config)
    key = await asyncio.to_thread(_key, warmed, host, assets)
    folder = root / key
    if (saved := await asyncio.to_thread(_open, folder, command)) is not None:
        return saved, False
    async with locked(root / f"{key}.lock"):
        if (saved := await asyncio.to_thread(_open, folder, command)) is not None:
            return saved, False
        new = root / f".new-{key}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        try:
            await _build(warmed, new, _recipe(warmed) if command is None else command)
            with open_saved(new, boot_id=boot_id(), what=f"warm image {key}") as made:
                await _record(warmed, made)
            faults.point(_BUILT)
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        await asyncio.to_thread(_collect, root, key, warmed.image)
    saved = _open(folder, command)
    if saved is None:
        raise StateError(f"the warm image {key} is gone as soon as it was made", hint="is the cache's disk full?")
    return saved, True


def _open(folder: Path, command: tuple[str, ...] | None) -> Saved | None:
    """None where there is none; one that was damaged, or in which another command ran, is thrown away."""
    try:
        saved = open_saved(folder, boot_id=boot_id(), what=f"warm image {folder.name}")
    except NotFoundError:
        return None
    except StateError as error:
        _log.warning("%s; it is made again", error)
        discard(folder)
        return None
    if command is not None and tuple(saved.document["command"]) != command:
        saved.close()
        discard(folder)
        return None
    with suppress(FileNotFoundError):
        os.utime(folder / "manifest.json")
    return saved


def joined(warmed: WarmUp, network: ContainerNetwork | None) -> VmConfig:
    """The configuration of a VM of `warmed` on `network`."""
    return warmed.prepared.config if network is None else network.joined(warmed.prepared.config)


def warm_head_start(warmed: WarmUp, network: ContainerNetwork | None, folder: VmFolder) -> HeadStart[Saved] | None:
    """Spawn the clone of the warm image that a start takes; None where something has to be found out or made before.

    Blocks for some milliseconds. Its `base` is the warm image. Raises as `VirtualMachine.restore`.
    """
    found = recall_host(warmed.dirs, warmed.prepared.config)
    if found is None:
        return None
    assets, host = found
    saved = _open(warmed.dirs.make("cache", "warm") / _key(warmed, host, assets), None)
    if saved is None:
        return None
    try:
        return head_start_saved(folder, replace(joined(warmed, network), disks=saved.disks()), saved, host, assets)
    except BaseException:
        saved.close()
        raise


def _key(warmed: WarmUp, host: HostCapabilities, assets: BootAssets) -> str:
    # The shape has a card's addresses, which are always the same.
    shape = Shape.of(warmed.prepared.config, host, assets)
    cards = warmed.options.network, warmed.options.mtu
    inputs = [_FORMAT, shape.key, *cards, str(warmed.image.chain_id), int(warmed.options.disk)]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]


async def _build(warmed: WarmUp, folder: Path, command: tuple[str, ...]) -> None:
    prepared = warmed.prepared
    async with AsyncExitStack() as stack:
        own = stack.enter_context(VmFolder.claim(warmed.dirs, f"warm-{secrets.token_hex(6)}"))
        network = open_network(replace(warmed.options, publish=()), own.path, stack)
        vm = await VirtualMachine.start(joined(warmed, network), folder=own, dirs=warmed.dirs)
        stack.push_async_callback(vm.aclose)
        calls = [
            vm.agent.submit(vm.resume_message()),
            *vm.submit_networks(),
            *(
                vm.agent.mount(mount.type, mount.source, mount.destination, options=mount.options, mkdir=True)
                for mount in prepared.guest_mounts
            ),
        ]
        for call in calls:
            await call
        await _run_first(vm, warmed, command)
        rooted = await _give_root(vm, warmed) if vm.forked and prepared.config.parked else ""
        await vm.agent.read_ahead(GUEST_ID, (*_path(prepared.spec), *_EVERYONES), timeout=_LIMIT)
        await vm.agent.quiesce(timeout=_LIMIT)
        # What the kernel puts off shall be done here, once, not in each start.
        await asyncio.sleep(_SETTLE)
        document = {"image": str(warmed.image), "chain": str(warmed.image.chain_id), "command": list(command)}
        await save(vm, folder, document | {"rooted": rooted}, go_on=False)


async def _record(warmed: WarmUp, saved: Saved) -> None:
    """Have a clone of the warm image record its first pages; without them each is a little slower."""
    try:
        async with AsyncExitStack() as stack:
            vm, _ = await clone(warmed, saved, f"warm-{secrets.token_hex(6)}", stack)
            await rehearse(vm, warmed, saved, SHELL)
            await record_first_pages(vm, saved.folder)
    except (FirkinError, OSError) as error:
        _log.warning("%s: what its clones write first can't be recorded: %s", saved.name, error)


async def clone(
    warmed: WarmUp, saved: Saved, name: str, stack: AsyncExitStack
) -> tuple[VirtualMachine, ContainerNetwork | None]:
    """A VM of the warm image that nothing runs in yet, and its network; `stack` takes both down."""
    folder = VmFolder.claim(warmed.dirs, name)
    stack.callback(folder.remove)
    network = open_network(replace(warmed.options, publish=()), folder.path, stack)
    config = replace(joined(warmed, network), disks=saved.disks())
    vm = await VirtualMachine.restore(config, saved, folder=folder, dirs=warmed.dirs)
    stack.push_async_callback(vm.aclose)
    return vm, network


async def rehearse(vm: VirtualMachine, warmed: WarmUp, saved: Saved, command: Sequence[str]) -> None:
    """Run `command` in a clone as a start of it does. Raises `FirkinTimeoutError`; it may be missing in the image."""
    known = [vm.agent.submit(vm.resume_message(epoch=saved.epoch, hostname=_REHEARSAL)), *vm.submit_networks()]
    for call in known:
        await call
    try:
        await warm_up(vm, warmed, command, id=_REHEARSAL, rooted=saved.document["rooted"])
    except FirkinTimeoutError:
        raise
    except FirkinError as error:
        _log.debug("the rehearsal of %s failed: %s", warmed.image, error)


async def _give_root(vm: VirtualMachine, warmed: WarmUp) -> str:
    """Let the parked container into the root; the mounts that it took along, empty where it stays out."""
    spec = warmed.prepared.spec
    mounts = root_mounts_of(spec)
    if mounts is None:
        return ""
    # They are written over by each start, and so have to be there.
    for call in map(vm.agent.submit, name_requests(warmed.options, spec.root.path, spec.hostname)):
        await call
    await vm.agent.park_root(GUEST_ID, mounts.encode())
    return mounts


def _path(spec: RuntimeSpec) -> list[str]:
    """Where a start looks for its program: a name that is not there is looked for in each of them."""
    found = [value.removeprefix("PATH=") for value in spec.process.env if value.startswith("PATH=")]
    return [folder for value in found[-1:] for folder in value.split(":") if folder.startswith("/")]


async def _run_first(vm: VirtualMachine, warmed: WarmUp, command: tuple[str, ...]) -> None:
    """Run the command, or the shell; leave it running where it only closed its output."""
    try:
        code = await warm_up(vm, warmed, command or SHELL)
    except (FirkinTimeoutError, VirtualMachineError):
        raise
    except Exception as error:
        if not command:
            # An image without a shell: then there is nothing to read ahead.
            return
        raise ImageError(f"the warm image's command can't be run: {error}") from error
    if code and command:
        raise ImageError(f"the warm image's command ended with {code}", hint="run it by hand to see why")


async def warm_up(
    vm: VirtualMachine, warmed: WarmUp, command: Sequence[str], *, id: ContainerId = _WARM_UP, rooted: str = ""
) -> int | None:
    """Run `command` in the warm root, in a container of its own, by the parked one where `rooted` fits (`program_of`).

    `id` is what the agent calls that container. Returns its exit code; None: it has closed its output and goes on.
    Raises `FirkinTimeoutError`, and as `start_process`.
    """
    spec = _as_command(warmed.prepared.spec, command, id)
    rest = program_of(spec, rooted)
    names = name_requests(warmed.options, spec.root.path, spec.hostname)
    process = await start_process(
        vm,
        id,
        ProcessId("init"),
        (rest or spec).to_json(),
        StdioSpec(stdout=Stdio.PIPED, stderr=Stdio.PIPED),
        pty=warmed.options.pty_size,
        program=command[0],
        before=tuple(map(vm.agent.submit, names)),
        parked=rest is not None,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_LIMIT):
            while await process.stdout.read():
                pass
        try:
            status = await process.wait(_ENDING)
        except FirkinTimeoutError:
            return None
        await vm.agent.delete_process(id, process.id)
        return status.shell_code
    except TimeoutError as error:
        raise FirkinTimeoutError(f"{command[0]} has neither ended nor closed its output in {_LIMIT:g} s") from error
    finally:
        await process.aclose()


def _as_command(spec: RuntimeSpec, command: Sequence[str], id: ContainerId) -> RuntimeSpec:
    linux = spec.linux._replace(cgroups_path=spec.linux.cgroups_path.replace(GUEST_ID, id))
    return spec._replace(linux=linux, process=spec.process._replace(args=tuple(command), terminal=False))


def warm_spec(warmed: WarmUp, id: ContainerId) -> RuntimeSpec:
    """The specification of the container `id` that starts in a clone."""
    return renamed(warmed.prepared.spec, str(resolve_hostname(warmed.options, id)))


def _recipe(warmed: WarmUp) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(warmed.recipe.read_bytes())))
    except (OSError, ValueError, TypeError):
        return ()


def _remember(warmed: WarmUp, command: Sequence[str]) -> None:
    warmed.dirs.make("cache", "warm-recipes")
    temporary = warmed.recipe.with_name(f".{warmed.recipe.name}-{os.getpid()}")
    temporary.write_text(json.dumps(list(command)))
    temporary.replace(warmed.recipe)


def _collect(root: Path, key: str, image: Image) -> None:
    """What no start can use any more goes (the image of that name is another now), then the least recently used."""

    def usable(folder: Path) -> bool:
        try:
            document: dict[str, Any] = read_manifest(folder)["document"]
            return bool(document["image"] != str(image) or document["chain"] == str(image.chain_id))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    collect(root, keep=key, most=_MOST, most_bytes=_MOST_BYTES, usable=usable)
