"""How far a container's start goes without an event loop: where image and base VM are here, to a QEMU that starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from firkin import faults
from firkin.core.mounted_disks import HELD
from firkin.core.option_inputs import OptionInputs, container_options
from firkin.core.prepare import DiskOf, PreparedVm, prepare
from firkin.oci.ensure import Pulled, at_hand
from firkin.oci.rootfs import OciBundle
from firkin.oci.store import ImageStore
from firkin.types import ContainerId, StateDirs
from firkin.vmm.folder import VmFolder
from firkin.vmm.head_start import HeadStart, head_start

if TYPE_CHECKING:
    from firkin.core.emulation import Emulation
    from firkin.core.lowering import SeccompProgram
    from firkin.core.networking import ContainerNetwork
    from firkin.core.options import ContainerOptions
    from firkin.core.sockets import SocketRelays
    from firkin.core.warm import WarmUp
    from firkin.oci.image import Image
    from firkin.vmm.base import BaseVm
    from firkin.vmm.config import VmConfig
    from firkin.vmm.saved import Saved

__all__ = ["Beginning", "Machine", "begin"]

_IMAGE_READY = faults.declare("launch.image-ready", "the root filesystem image is leased, there is no VM yet")


class Machine(NamedTuple):
    """What is to be started: the image, lowered, and the VM for it."""

    image: Image
    prepared: PreparedVm
    emulation: Emulation | None
    network: ContainerNetwork | None
    config: VmConfig


class Beginning:
    """A container whose options are checked and whose name is claimed. A context manager: leaving it undoes that.

    `machine` is None while the image is not here, `ahead` where something has to be made or found out before a fork.
    `warm_ahead` and `warmed` are of a start from a warm image. `image_ms` is how long the image took.
    """

    def __init__(self, image: str, id: ContainerId, options: ContainerOptions, dirs: StateDirs) -> None:
        self.image = image
        self.id = id
        self.options = options
        self.dirs = dirs
        self.store = ImageStore(dirs)
        self.machine: Machine | None = None
        self.ahead: HeadStart[BaseVm] | None = None
        self.warm_ahead: HeadStart[Saved] | None = None
        self.warmed: WarmUp | None = None
        self.image_ms = 0.0
        self.sockets: SocketRelays | None = None
        self._began = time.perf_counter()
        self.stack = ExitStack()
        # First of all, so that a name in use costs nothing; the VM takes the folder over.
        self.folder = VmFolder.claim(dirs, id)
        self.stack.callback(self.folder.remove)

    def go(self) -> None:
        """Everything that needs no waiting."""
        options = self.options
        if options.sockets:
            self._bind()
        if any(mount.kind in HELD for mount in options.mounts):
            return
        pulled = at_hand(self.store, self.image, policy=options.pull, platform=options.platform, convert=options.disk)
        if pulled is None:
            return
        machine = self.settle(pulled)
        if options.warm:
            self._warm(machine)
            return
        if options.fork and (ahead := head_start(self.folder, machine.config, self.dirs)):
            self.ahead = self.stack.enter_context(ahead)
        # QEMU starts meanwhile.
        _ = machine.prepared.spec

    def _warm(self, machine: Machine) -> None:
        from firkin.core.warm import lower_warm, warm_head_start

        self.warmed = lower_warm(machine.image, machine.prepared.rootfs_device.path, self.options, self.dirs)
        if ahead := warm_head_start(self.warmed, machine.network, self.folder):
            self.warm_ahead = self.stack.enter_context(ahead)
        _ = self.warmed.prepared.spec

    def settle(self, pulled: Pulled, disk_of: DiskOf | None = None) -> Machine:
        """Take the image and its root filesystem over, and say what is to be started.

        `disk_of` is for `prepare`.
        """
        assert pulled.rootfs is not None
        prepared = prepare(
            self.options,
            OciBundle(pulled.image),
            container_id=self.id,
            root_path=self.stack.enter_context(pulled.rootfs).path,
            disk_of=disk_of,
            seccomp=partial(_seccomp, self.dirs),
        )
        emulation = _emulation(prepared, self.options, self.dirs) if prepared.emulate else None
        config = emulation.config if emulation else prepared.config
        network = self._cable()
        if network is not None:
            config = network.joined(config)
        self.machine = Machine(pulled.image, prepared, emulation, network, config)
        self.image_ms = (time.perf_counter() - self._began) * 1e3
        faults.point(_IMAGE_READY)
        return self.machine

    def _bind(self) -> None:
        from firkin.core.sockets import SocketRelays

        self.sockets = SocketRelays(self.folder.path, self.options.sockets)
        self.stack.callback(self.sockets.release)
        self.sockets.bind()

    def _cable(self) -> ContainerNetwork | None:
        if self.options.network == "none":
            return None
        from firkin.core.networking import lay_cable

        return lay_cable(self.options, self.stack)

    def take(self) -> ExitStack:
        """What has to be undone at the end: the caller's from now on."""
        return self.stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)


def begin(
    image: str, command: Sequence[str], *, name: str | None, dirs: StateDirs | None, options: OptionInputs
) -> Beginning:
    """Begin a container's start. Blocks for some milliseconds. Raises as `AsyncContainer.launch` does."""
    chosen = container_options(command, **options)
    id = ContainerId(name) if name is not None else ContainerId.random()
    with ExitStack() as failed:
        begun = failed.enter_context(Beginning(image, id, chosen, dirs or StateDirs.default()))
        begun.go()
        failed.pop_all()
    return begun


def _seccomp(dirs: StateDirs, options: ContainerOptions) -> SeccompProgram | None:
    from firkin.core.seccomp_cache import container_program

    return container_program(options, cache=dirs.cache / "seccomp")


def _emulation(prepared: PreparedVm, options: ContainerOptions, dirs: StateDirs) -> Emulation:
    from firkin.core.emulation import announce, emulate

    emulation = emulate(prepared, dirs.cache / "emulators")
    if options.emulate is None:
        announce(prepared)
    return emulation
