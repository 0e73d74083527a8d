"""VMs that stand ready: forked already, their translation hot, each leased once, first in first out.

A ready VM has run a process and is stopped: it costs memory, no processor. At the lease it goes on, gets its
randomness, clock and name, and the process that it is leased for, in one go.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Unpack

from firkin import faults
from firkin.core.container import AsyncContainer
from firkin.core.ledger import Host, Ledger, Promise, Reserves, ThisHost
from firkin.core.networking import ContainerNetwork
from firkin.core.option_inputs import OptionInputs, container_options
from firkin.core.parking import program_of
from firkin.core.restore import Streams, begin_restore, finish_restore, open_snapshot
from firkin.core.warm import GUEST_ID, SHELL, WarmUp, clone, find_or_warm, lower_warm, prepare_warm, rehearse
from firkin.core.warm_start import start_in
from firkin.errors import FirkinError, FirkinTimeoutError, InvalidInputError, StateError
from firkin.types import ContainerId, StateDirs, Stdio
from firkin.vmm import VirtualMachine
from firkin.vmm.closing import Closing
from firkin.vmm.saved import Saved

__all__ = ["AsyncWarmPool"]

_READY = faults.declare("pool.ready", "a VM has rehearsed and is stopped, nobody knows of it yet")
_LEASED = faults.declare("pool.leased", "a ready VM is taken out of the pool, its process is not started")
_log = logging.getLogger("firkin.core.pool")
_MOST = 256
# Seconds between looks at the host while nothing else happens.
_LOOK = 1.0
# The options of a lease that are the process's own; all others were settled when the pool's VMs were made.
_OWN = frozenset(
    {
        *("env", "working_dir", "user", "group_add", "capabilities", "cap_add", "cap_drop", "rlimits", "privileged"),
        *("no_new_privileges", "oom_score_adj", "terminal", "pty_size", "stdin", "stdout", "stderr"),
        *("entrypoint", "hostname", "labels", "stop_signal", "stop_timeout"),
    }
)


@dataclass(slots=True)
class _Ready:
    """One VM that waits for its lease, stopped. `stack` undoes it."""

    vm: VirtualMachine
    network: ContainerNetwork | None
    saved: Saved
    stack: AsyncExitStack


class AsyncWarmPool(Closing):
    """`size` VMs of `image`, or clones of `snapshot`, ready to be leased. An async context manager.

        async with AsyncWarmPool("debian-python", size=4) as pool:
            async with await pool.lease(["python3", "-c", "print(1)"], stdout=Stdio.PIPED) as container:
                ...

    `options` are those of `AsyncContainer.launch` that shape the VM and the container; a lease adds the process's own.
    `dry_run` is what each VM of an image runs before it waits. Fewer than `size` stand ready while the ledger refuses
    more, and under memory pressure those that do are given up one by one. Raises `InvalidInputError`.
    """

    def __init__(
        self,
        image: str = "",
        size: int = 2,
        *,
        snapshot: str = "",
        dry_run: Sequence[str] = SHELL,
        reserves: Reserves | None = None,
        host: Host | None = None,
        dirs: StateDirs | None = None,
        **options: Unpack[OptionInputs],
    ) -> None:
        if bool(image) == bool(snapshot):
            raise InvalidInputError("a pool is of an image or of a snapshot", value=image, hint="give one of both")
        if not 1 <= size <= _MOST:
            raise InvalidInputError(f"a pool of {size} VMs is out of range", value=size, hint=f"1 to {_MOST}")
        self.image, self.snapshot, self.size = image, snapshot, size
        self._dirs = dirs or StateDirs.default()
        self._given: Any = dict(options)
        self._options = container_options((), **options)
        self._dry_run = tuple(dry_run)
        self._ledger = Ledger(host or ThisHost(self._dirs.make("run")), reserves or Reserves())
        self._ready: deque[_Ready] = deque()
        self._waiting: deque[asyncio.Future[_Ready]] = deque()
        self._serving = 0
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()
        self._stack = AsyncExitStack()
        self._filler: asyncio.Task[None] | None = None
        self._warmed: WarmUp | None = None
        self._failure: FirkinError | None = None
        self._closed = False

    @property
    def ready(self) -> int:
        """VMs that stand ready now."""
        return len(self._ready)

    async def start(self) -> None:
        """Make what the VMs are forked of, and begin to fork them. Raises as `AsyncContainer.launch`."""
        if self.image:
            self._warmed = await prepare_warm(self.image, self._options, self._dirs, None, self._stack)
        saved = await self._open()
        saved.close()
        self._filler = asyncio.create_task(self._fill())

    async def __aenter__(self) -> AsyncWarmPool:
        try:
            await self.start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def filled(self) -> None:
        """Wait until `size` stand ready, or no more may. Raises what keeps them from being made."""
        while self.ready < self.size and self._failure is None and not self._ledger.refusal(self._promise()):
            self._looked.clear()
            await self._looked.wait()
        if self._failure is not None:
            raise self._failure

    async def emptied(self) -> None:
        """Wait until none stands ready: all are leased, or were given up."""
        while self.ready:
            self._looked.clear()
            await self._looked.wait()

    async def lease(
        self, command: Sequence[str] = (), *, timeout: float | None = None, **options: Unpack[OptionInputs]
    ) -> AsyncContainer:
        """A container in the VM that has been ready the longest; while there is none, wait up to `timeout` seconds.

        Of an image's pool it runs `command` with `options` of the process; of a snapshot's it goes on as it was saved,
        `options` are its streams. It is the caller's to close. Raises `FirkinTimeoutError`, `StateError` (the pool is
        closed), and as `AsyncContainer.launch`. Raises `InvalidInputError`.
        """
        if foreign := set(options) - (_OWN if self.image else {"stdin", "stdout", "stderr", "hostname"}):
            name = sorted(foreign)[0]
            raise InvalidInputError(f"{name} is settled when a pool is made", value=name, hint="give it to the pool")
        given: Any = self._given | dict(options)
        chosen = container_options(command, **given)
        self._serving += 1
        try:
            ready = await self._take(timeout)
            return await self._start(ready, chosen, given)
        finally:
            self._serving -= 1
            self._changed.set()

    async def _take(self, timeout: float | None) -> _Ready:
        if self._closed or self._filler is None:
            raise StateError("the pool is closed" if self._closed else "the pool was not started")
        # Who is already waiting was here first.
        while self._ready and not self._waiting:
            ready = self._ready.popleft()
            self._changed.set()
            if ready.vm.running:
                return ready
            await self._give_up(ready)
        if self._failure is not None:
            raise self._failure
        future: asyncio.Future[_Ready] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._changed.set()
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as error:
            why = self._ledger.refusal(self._promise())
            raise FirkinTimeoutError(f"no VM was ready within {timeout:g} s", hint=why) from error
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    async def _start(self, ready: _Ready, chosen: Any, given: dict[str, Any]) -> AsyncContainer:
        vm, stack = ready.vm, ready.stack
        faults.point(_LEASED)
        try:
            going = asyncio.ensure_future(vm.resume())
            if self._warmed is not None:
                id = ContainerId(vm.name)
                warmed = self._lowered(chosen)
                container = await start_in(
                    AsyncContainer, (vm, ready.network), id, warmed, ready.saved, stack, before=(going,)
                )
            else:
                await going
                streams = Streams(*(given.get(name, Stdio.NULL) for name in ("stdin", "stdout", "stderr")))
                hostname, begun = given.get("hostname"), (vm, ready.network)
                container = await finish_restore(
                    AsyncContainer, begun, ready.saved, hostname, streams, self._dirs, stack
                )
        except BaseException:
            await stack.aclose()
            raise
        container.own(stack.pop_all())
        return container

    def _lowered(self, chosen: Any) -> WarmUp:
        """The pool's image with the process of one lease: nothing that shapes the VM differs."""
        assert self._warmed is not None
        root = self._warmed.prepared.rootfs_device.path
        return lower_warm(self._warmed.image, root, chosen, self._dirs)

    # ---- making them

    def _promise(self) -> Promise:
        return Promise.of(self._options.vcpus, int(self._options.memory))

    async def _open(self) -> Saved:
        if self._warmed is not None:
            return (await find_or_warm(self._warmed))[0]
        return await asyncio.to_thread(open_snapshot, self.snapshot, self._dirs)

    async def _fill(self) -> None:
        """One at a time, and never while a lease is being served by what is there."""
        while True:
            self._changed.clear()
            if self._ready and self._ledger.under_pressure:
                _log.info("memory is short: a ready VM of %s is given up", self.image or self.snapshot)
                await self._give_up(self._ready.pop())
            elif self._may_fill():
                if self._ready and not self._waiting and self._ledger.busy:
                    # Nobody waits for it, and others have work: one a look, so that it comes all the same.
                    await asyncio.sleep(_LOOK)
                await self._add()
                self._looked.set()
                continue
            self._looked.set()
            try:
                async with asyncio.timeout(_LOOK):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _may_fill(self) -> bool:
        if self._waiting:
            return not self._ledger.refusal(self._promise())
        wanted = len(self._ready) < self.size and not self._serving
        return wanted and not self._ledger.refusal(self._promise())

    async def _add(self) -> None:
        try:
            ready = await self._make()
        except Exception as cause:  # noqa: BLE001 - a full disk, say: whoever waits for a lease is to be told
            _log.warning("no VM of %s can be made ready: %s", self.image or self.snapshot, cause)
            error = cause if isinstance(cause, FirkinError) else StateError(f"no VM can be made ready: {cause}")
            error.__cause__ = None if error is cause else cause
            self._failure = error
            while self._waiting:
                future = self._waiting.popleft()
                if not future.done():
                    future.set_exception(error)
            await asyncio.sleep(_LOOK)
            return
        self._failure = None
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(ready)
                return
        self._ready.append(ready)

    async def _make(self) -> _Ready:
        promise = self._promise()
        self._ledger.promise(promise)
        async with AsyncExitStack() as stack:
            stack.callback(self._ledger.give_back, promise)
            saved = await self._open()
            stack.callback(saved.close)
            id = ContainerId(f"pool-{secrets.token_hex(6)}")
            if self._warmed is not None:
                vm, network = await clone(self._warmed, saved, id, stack)
                await self._rehearse(vm, saved)
            else:
                vm, network = await begin_restore(saved, id, self._dirs, stack)
            await vm.pause()
            faults.point(_READY)
            own = stack.pop_all()
        return _Ready(vm, network, saved, own)

    async def _rehearse(self, vm: VirtualMachine, saved: Saved) -> None:
        """Run what a lease will run, so that the emulator has translated it."""
        assert self._warmed is not None
        spec, rooted = self._warmed.prepared.spec, saved.document["rooted"]
        # An image without a shell is leased all the same, a little colder.
        await rehearse(vm, self._warmed, saved, self._dry_run)
        # Not where the options ask for more than the parked container can be: then it stays parked.
        if program_of(spec, rooted) is not None:
            # The lease takes another.
            await vm.agent.park(self._warmed.prepared.config.parked)
            await vm.agent.park_root(GUEST_ID, rooted.encode())

    async def _give_up(self, ready: _Ready) -> None:
        await ready.stack.aclose()

    async def aclose(self) -> None:
        """Take down what stands ready; what is leased is its holder's."""
        self._closed = True
        if self._filler is not None:
            self._filler.cancel()
            await asyncio.gather(self._filler, return_exceptions=True)
        for future in self._waiting:
            if not future.done():
                future.set_exception(StateError("the pool was closed"))
        self._waiting.clear()
        while self._ready:
            await self._give_up(self._ready.popleft())
        await self._stack.aclose()
