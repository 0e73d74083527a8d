"""A fork's QEMU spawned before there is an event loop: it comes up while its owner imports what speaks to it."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from firkin.types.state import StateDirs
from firkin.vmm.assets import BootAssets, recall_assets
from firkin.vmm.base import BaseVm, Shape, open_base
from firkin.vmm.config import VmConfig
from firkin.vmm.folder import VmFolder
from firkin.vmm.host import HostCapabilities, recall
from firkin.vmm.launch import Launched, Restore, launch
from firkin.vmm.needs import Needs
from firkin.vmm.saved import Saved
from firkin.vmm.timings import Timings

__all__ = ["HeadStart", "head_start", "head_start_saved", "recall_host"]

SavedT = TypeVar("SavedT", BaseVm, Saved)


class HeadStart(Generic[SavedT]):
    """A QEMU that restores `base` and that nobody speaks to yet: `VirtualMachine.start` takes it over, or `restore`.

    A context manager: leaving it ends a QEMU that was not taken over.
    """

    def __init__(
        self, launched: Launched, base: SavedT, host: HostCapabilities, assets: BootAssets, timings: Timings
    ) -> None:
        self.base: SavedT = base
        self.host = host
        self.assets = assets
        self.timings = timings
        self._launched: Launched | None = launched
        self._spawned = time.perf_counter()

    def greet(self) -> None:
        """Send the HELLO: the guest reads it as soon as it runs. Where QEMU has ended already, `take`'s caller sees."""
        from firkin.vminitd.framing import Framing
        from firkin.vminitd.wire import Hello

        if self._launched is None:
            return
        hello = Hello(self.base.sentinel)
        framing = Framing.host(hello)
        with suppress(OSError):
            self._launched.agent.sendall(framing.take())
            self._launched.greeted = (framing, hello)

    def take(self) -> Launched:
        """The QEMU, which is the caller's from now on."""
        launched, self._launched = self._launched, None
        if launched is None:
            raise RuntimeError("this head start was taken before")
        self.timings.record("import", (time.perf_counter() - self._spawned) * 1e3)
        return launched

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._launched is not None:
            self.take().end()
            self.base.close()


def recall_host(dirs: StateDirs, config: VmConfig) -> tuple[BootAssets, HostCapabilities] | None:
    """What a start found out before, without looking; None where there was none, or nesting has to be looked at."""
    assets = recall_assets(dirs, config.kernel)
    host = None if assets is None else recall(dirs, assets, accel=config.accel)
    return None if assets is None or host is None or config.nested else (assets, host)


def head_start(folder: VmFolder, config: VmConfig, dirs: StateDirs) -> HeadStart[BaseVm] | None:
    """Spawn the fork that `VirtualMachine.start` would; None where something has to be found out or made before.

    Blocks for some milliseconds. Raises what `VirtualMachine.start` does of what can be told by then.
    """
    timings = Timings()
    with timings.phase("prepare"):
        found = recall_host(dirs, config)
        if found is None or config.shares:
            return None
        assets, host = found
        base = open_base(dirs.make("cache", "base") / Shape.of(config, host, assets).key, host)
    if base is None:
        return None
    try:
        with timings.phase("spawn"):
            launched = launch(folder, config, host, Restore(base.ram, base.state))
    except BaseException:
        base.close()
        raise
    started = HeadStart(launched, base, host, assets, timings)
    started.greet()
    return started


def head_start_saved(
    folder: VmFolder, config: VmConfig, saved: Saved, host: HostCapabilities, assets: BootAssets
) -> HeadStart[Saved]:
    """Spawn the clone of `saved` that `VirtualMachine.restore` would. Raises as it does."""
    timings = Timings()
    saved.needs.check(Needs.of(config, host), saved.name)
    with timings.phase("spawn"), saved.path("state").open("rb") as state:
        launched = launch(folder, config, host, Restore(saved.files["ram"], state.fileno(), saved.pages))
    started = HeadStart(launched, saved, host, assets, timings)
    started.greet()
    return started
