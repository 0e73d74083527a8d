"""A container in a VM of its own: the asyncio engine's handle. `firkin.core.blocking` is its sync face."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal as signals
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Self, Unpack

from firkin.core.capture import CAPTURE_LIMIT
from firkin.core.exec_config import ExecConfig
from firkin.core.exit import CompletedProcess, ExitStatus
from firkin.core.option_inputs import ExecInputs, OptionInputs
from firkin.core.process import AsyncProcess
from firkin.core.sockets import SocketRelays
from firkin.core.starting import start_process
from firkin.core.stdio import StdioSpec
from firkin.errors import StateError
from firkin.types import ContainerId, ProcessId, PtySize, Signal, Size, Stdio
from firkin.types.stdio import DEFAULT_PTY_SIZE
from firkin.vmm.closing import Closing

if TYPE_CHECKING:
    from firkin.core.copy.options import GetOptions, HostSource, HostTarget, PutOptions
    from firkin.core.copy.peer import CopyPeer, FileStat
    from firkin.core.copy.report import CopyReport
    from firkin.core.limits import Limits
    from firkin.core.networking import ContainerNetwork
    from firkin.core.options import ContainerOptions
    from firkin.core.publication import PortPublication
    from firkin.core.socket_relay import SocketRelay
    from firkin.core.spec import RuntimeSpec
    from firkin.core.stats import Stats
    from firkin.network.policy import Policy
    from firkin.oci.image import Image
    from firkin.oci.registry.progress import Progress
    from firkin.types import StateDirs
    from firkin.vminitd.stream import Listener, Stream
    from firkin.vmm.machine import VirtualMachine
    from firkin.vmm.save import SaveReport
    from firkin.vmm.timings import Timings

__all__ = ["AsyncContainer"]

# Seconds for what is still in the guest's page cache to be written to a slow disk.
_SYNC_LIMIT = 60.0


class AsyncContainer(Closing):
    """A container and its VM. An async context manager: leaving the block stops both and removes everything they had.

    Made by `launch`. `process` is its first process, which runs already.
    """

    def __init__(
        self,
        *,
        id: ContainerId,
        image: Image | None,
        options: ContainerOptions,
        spec: RuntimeSpec,
        vm: VirtualMachine,
        process: AsyncProcess,
        stop_signal: Signal,
        dirs: StateDirs,
        guest_id: ContainerId | None = None,
        image_name: str = "",
        epoch: int = 1,
        network: ContainerNetwork | None = None,
        sockets: SocketRelays | None = None,
    ) -> None:
        self.id = id
        # What the agent calls it: a clone keeps the name of what it was saved from.
        self.guest_id = guest_id or id
        self.image_name = str(image) if image else image_name
        self.epoch = epoch
        self.dirs = dirs
        self.image = image
        self.options = options
        self.spec = spec
        self.vm = vm
        self.process = process
        self.stop_signal = stop_signal
        self.network = network
        self._sockets = SocketRelays(vm.folder.path, ()) if sockets is None else sockets
        self._stack = AsyncExitStack()
        self.created = datetime.now(UTC)
        self._numbers = itertools.count(1)
        self._processes: dict[ProcessId, AsyncProcess] = {}

    @classmethod
    async def launch(
        cls,
        image: str,
        command: Sequence[str] = (),
        *,
        name: str | None = None,
        dirs: StateDirs | None = None,
        progress: AbstractContextManager[Progress] | None = None,
        **options: Unpack[OptionInputs],
    ) -> Self:
        """Start `image` in a new VM and return once its first process runs.

        `name` is the container's id, unique among live ones (default: random). `progress` is entered for as long as
        the image is downloaded, if it is. Options are those of `ContainerOptions`, loosely typed. Raises
        `InvalidInputError`, `ImageError`, `StateError` (the name is in use), `VirtualMachineError`, `ExecError` (the
        program can't be executed), `AgentError`; after an error nothing is left.
        """
        from firkin.core.launch import launch

        return await launch(cls, image, command, name=name, dirs=dirs, progress=progress, options=options)

    @classmethod
    async def restore(
        cls,
        snapshot: str,
        *,
        name: str | None = None,
        hostname: str | None = None,
        stdin: Stdio = Stdio.NULL,
        stdout: Stdio = Stdio.NULL,
        stderr: Stdio = Stdio.NULL,
        dirs: StateDirs | None = None,
    ) -> Self:
        """A clone of the container that was saved as `snapshot`: its processes go on from where they were.

        `hostname` is, unless given, the source's own where it had one, else made of `name`. The standard streams are
        new ones of the first process; what it writes to one that is NULL waits for a reader. One that was NULL in the
        source leads nowhere in its clones, too. Raises `NotFoundError`, `StateError` (the host lacks what the snapshot
        needs, a file is missing or altered), `VirtualMachineError`.
        """
        from firkin.core.restore import Streams, restore

        streams = Streams(stdin, stdout, stderr)
        return await restore(cls, snapshot, container=name, hostname=hostname, streams=streams, dirs=dirs)

    async def snapshot(self, name: str, *, stop: bool = False) -> SaveReport:
        """Save memory, processes and disks of this instant as `name`; the container goes on, or is stopped.

        Raises `InvalidInputError` for what can't be saved (a live share, a relayed socket) and `StateError` (the name
        is taken, the container is paused or has ended) before anything stands still.
        """
        from firkin.core.snapshot import snapshot

        return await snapshot(self, name, stop=stop)

    async def fork(self, count: int = 1, *, names: Sequence[str] | None = None) -> list[Self]:
        """So many clones of the container as it is now, each in a VM of its own. Raises as `snapshot`."""
        from firkin.core.restore import fork

        return await fork(self, count, names)

    def adopt(self, processes: Sequence[AsyncProcess]) -> None:
        """Take over processes of `exec` that a restore brought along."""
        self._processes.update((process.id, process) for process in processes)
        self._numbers = itertools.count(1 + max((_number(process.id) for process in processes), default=0))

    def own(self, stack: AsyncExitStack) -> None:
        """Take over what has to be undone at the end."""
        self._stack = stack

    @property
    def timings(self) -> Timings:
        """The phases of this container's start, in milliseconds."""
        return self.vm.timings

    @property
    def processes(self) -> list[AsyncProcess]:
        """The first process, then those of `exec`, ended ones too."""
        return [self.process, *self._processes.values()]

    @property
    def paused(self) -> bool:
        """Whether the VM stands still, between `pause` and `resume`."""
        return self.vm.link.paused

    async def wait(self, timeout: float | None = None) -> ExitStatus:
        """Wait for the first process, at most `timeout` seconds. Raises `FirkinTimeoutError`, `VirtualMachineError`."""
        return await self.process.wait(timeout)

    async def kill(self, signal: Signal | int | str = signals.SIGKILL) -> None:
        """Send `signal` to the first process. Raises `StateError` while paused: nobody would take it."""
        self._check_not_paused()
        await self.process.kill(signal)

    async def stop(self, grace: float | None = None) -> ExitStatus:
        """Send the image's stop signal to the first process; SIGKILL after `grace` seconds (default 10). Returns as
        soon as it is gone. What is paused goes on before."""
        if grace is None:
            grace = 10.0 if self.options.stop_timeout is None else self.options.stop_timeout
        if self.paused:
            await self.resume()
        return await self.process.stop(self.stop_signal, grace)

    async def exec(self, command: Sequence[str], **options: Unpack[ExecInputs]) -> AsyncProcess:
        """Start a further process. Raises `StateError` once the container has ended, `ExecError`, `AgentError`."""
        config = ExecConfig.of(command, **options)
        return await self.exec_config(config)

    async def exec_config(self, config: ExecConfig) -> AsyncProcess:
        """As `exec`, from an `ExecConfig`."""
        self._check_running()
        id = ProcessId(f"exec-{next(self._numbers)}")
        spec = config.runtime_spec(self.guest_id, self.spec)
        stdio = StdioSpec(config.stdin, config.stdout, config.stderr, config.terminal)
        process = await start_process(
            self.vm, self.guest_id, id, spec.to_json(), stdio, pty=config.pty_size, program=config.command[0]
        )
        self._processes[id] = process
        return process

    async def run(
        self,
        command: Sequence[str],
        *,
        input: bytes | str | None = None,
        text: bool = False,
        check: bool = False,
        timeout: float | None = None,
        capture_limit: int = CAPTURE_LIMIT,
        **options: Unpack[ExecInputs],
    ) -> CompletedProcess:
        """Run `command` in the container to its end and capture what it writes, as `subprocess.run` does.

        At `timeout` (seconds) the process is killed and `FirkinTimeoutError` raised. `check` raises
        `ProcessFailedError` for another end than
        exit code 0.
        """
        from firkin.core.run import finish

        options.setdefault("stdin", Stdio.NULL if input is None else Stdio.PIPED)
        options.setdefault("stdout", Stdio.PIPED)
        options.setdefault("stderr", Stdio.PIPED)
        process = await self.exec(command, **options)
        try:
            return await finish(
                process, command, input=input, text=text, check=check, timeout=timeout, limit=capture_limit
            )
        except asyncio.CancelledError:
            # Nobody has a handle of it: it must not run on.
            if self.vm.link.error is None and not self.paused:
                await process.kill()
            raise
        finally:
            await self.forget(process)

    async def forget(self, process: AsyncProcess) -> None:
        """Let go of a process of `exec`: its streams, and what the agent knows of it if it has ended."""
        self._processes.pop(process.id, None)
        await process.aclose()
        if process.status is not None and self.vm.running:
            await self.vm.agent.delete_process(self.guest_id, process.id)

    async def open_tty(
        self, command: Sequence[str], size: PtySize = DEFAULT_PTY_SIZE, **options: Unpack[ExecInputs]
    ) -> AsyncProcess:
        """Start `command` on a terminal of its own; the process's `stdin` is the terminal, both ways."""
        options["terminal"] = True
        options["pty_size"] = size
        options.setdefault("stdin", Stdio.PIPED)
        return await self.exec(command, **options)

    def describe(self) -> dict[str, Any]:
        """What `firkin inspect` prints: plain values."""
        status = self.process.status
        return {
            "id": self.id,
            "image": self.image_name or None,
            "command": list(self.spec.process.args),
            "created": self.created.isoformat(),
            "owner_pid": os.getpid(),
            "qemu_pid": self.vm.pid,
            "pid": self.process.pid,
            "status": ("paused" if self.paused else "running") if status is None else str(status),
            "terminal": self.options.terminal,
            "stdin_open": self.options.stdin is not Stdio.NULL,
            "hostname": self.spec.hostname,
            "cpus": self.options.cpus,
            "memory": int(self.options.memory),
            "labels": dict(self.options.labels),
            "accelerator": self.vm.host.accelerator,
            "forked": self.vm.forked,
            "network": self.network.describe() if self.network else None,
            "timings_ms": self.timings.phases,
        }

    async def stats(self) -> Stats:
        """What the container uses and its VM costs, now. Raises `StateError` while paused, `AgentError`."""
        from firkin.core.stats import host_cost, read_stats

        self._check_not_paused()
        container, vm, host = await asyncio.gather(
            self.vm.agent.statistics(container=self.guest_id),
            self.vm.agent.statistics(),
            asyncio.to_thread(host_cost, self.vm.pid),
        )
        return read_stats(self.id, container, vm, host)

    async def update(
        self,
        *,
        pids_limit: int | None = None,
        cpus: float | None = None,
        memory: Size | int | str | None = None,
        memory_high: Size | int | str | None = None,
        read_bps: Size | int | str | None = None,
        write_bps: Size | int | str | None = None,
        read_iops: int | None = None,
        write_iops: int | None = None,
    ) -> None:
        """Change limits of the running container; -1 lifts one, `None` leaves it as it is.

        `memory` (bytes, or `"64m"`) kills above it, `memory_high` slows down above it; both are the container's own,
        within the VM's. `read_bps`, `write_bps`: bytes a second from and to the root filesystem's disk; `read_iops`,
        `write_iops`: operations. Where one can't be set, some of the others are. Raises `InvalidInputError`,
        `StateError`, `AgentError`.
        """
        from firkin.core.limits import Limits

        limits = Limits.of(
            pids_limit=pids_limit,
            cpus=cpus,
            memory=memory,
            memory_high=memory_high,
            read_bps=read_bps,
            write_bps=write_bps,
            read_iops=read_iops,
            write_iops=write_iops,
        )
        await self.set_limits(limits)

    async def set_limits(self, limits: Limits) -> None:
        """As `update`, from `Limits`."""
        from firkin.core.limiting import set_limits

        limits.cgroup_files(vcpus=self.options.vcpus)
        self._check_running()
        await set_limits(self.vm, self.guest_id, self.options, limits)

    @property
    def ports(self) -> tuple[PortPublication, ...]:
        """What is published on the host, with the ports that were picked."""
        return self.network.ports if self.network else ()

    async def publish(self, port: PortPublication | str) -> tuple[PortPublication, ...]:
        """Publish `[IP:][HOST:]GUEST[/udp]` while the container runs; what that became. Raises `StateError` where a
        port is in use, or without a network."""
        from firkin.core.networking import needed, parsed

        return await asyncio.to_thread(needed(self.network).publish, parsed(port))

    async def unpublish(self, port: PortPublication | str) -> None:
        """Give a published port back, its connections go on; without the host's port, the first that leads there.
        Raises `NotFoundError`."""
        from firkin.core.networking import needed, parsed

        await asyncio.to_thread(needed(self.network).unpublish, parsed(port))

    async def set_network_policy(
        self, *, allow_net: Iterable[str] = (), deny_net: Iterable[str] = (), allow_domain: Iterable[str] = ()
    ) -> None:
        """Replace what may be reached; connections that are not allowed any more are cut before this returns. Raises
        `InvalidInputError`, `StateError`."""
        from firkin.network.policy import Policy

        await self.replace_policy(Policy.of(allow_net=allow_net, deny_net=deny_net, allow_domain=allow_domain))

    async def replace_policy(self, policy: Policy) -> None:
        """As `set_network_policy`, by a `Policy`."""
        from firkin.core.networking import needed

        await asyncio.to_thread(needed(self.network).network.set_policy, policy)

    async def put(self, source: HostSource, destination: str, **options: Unpack[PutOptions]) -> CopyReport:
        """Copy `source` of this host to `destination` in the container, by the rules of `docker cp`.

        A path (a folder with all below, `folder/.` for what is in it), or the content of one file. An existing folder
        as destination takes the source in under its name. A file appears in the guest when it is whole, in place of
        what was there; of a tree, those that were whole stay where a copy fails. Modes, times, symbolic and hard links
        and holes are kept, extended attributes are not. `options`: `PutOptions`. Raises `InvalidInputError`,
        `StateError`, `AgentError`, `FirkinTimeoutError`, `FirkinError` for what can't be read here.
        """
        from firkin.core.copy.transfer import put

        return await put(self.copy_peer(), source, destination, **options)

    async def get(self, source: str, destination: HostTarget, **options: Unpack[GetOptions]) -> CopyReport:
        """Copy `source` in the container to `destination` of this host, by the rules of `docker cp`.

        `source/.` means what is in a folder. A file, and a folder that was not there, appears when it is whole; into a
        folder that was, file by file. Nothing is written outside the destination, device nodes are refused, set-id bits
        and extended attributes dropped. `options`: `GetOptions`. Raises as `put` does, and `FirkinError` for an archive
        that is refused or goes beyond its limits.
        """
        from firkin.core.copy.transfer import get

        return await get(self.copy_peer(), source, destination, **options)

    async def put_archive(
        self,
        archive: BinaryIO | int,
        directory: str,
        *,
        preserve_owner: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Unpack a tar (POSIX, GNU) in an existing folder of the container. An int is a file descriptor."""
        from firkin.core.copy.transfer import put_archive

        await put_archive(self.copy_peer(), archive, directory, preserve_owner=preserve_owner, timeout=timeout)

    async def get_archive(
        self, source: str, archive: BinaryIO | int, *, follow: bool = False, timeout: float | None = None
    ) -> None:
        """Write `source` in the container as a tar (POSIX pax) to a file or file descriptor. It is what the guest sent:
        to be unpacked by what refuses names that lead elsewhere."""
        from firkin.core.copy.transfer import get_archive

        await get_archive(self.copy_peer(), source, archive, follow=follow, timeout=timeout)

    @property
    def sockets(self) -> tuple[SocketRelay, ...]:
        """The Unix sockets that are relayed now."""
        return self._sockets.relays

    async def relay_socket(self, relay: SocketRelay) -> None:
        """Relay a further Unix socket, as the option `sockets` does. Raises `InvalidInputError`, `AgentError`."""
        self._check_running()
        await self._sockets.add(self.vm, self.guest_id, relay)

    async def stop_socket(self, relay: SocketRelay) -> None:
        """End a relay with its connections, and remove its socket. Raises `NotFoundError`, `AgentError`."""
        await self._sockets.remove(self.vm, relay)

    async def stat(self, path: str, *, follow: bool = False) -> FileStat:
        """What lstat(2), or with `follow` stat(2), says of a file in the container. Raises `AgentError` (ENOENT, …)."""
        from firkin.core.copy.places import guest_path

        return await self.copy_peer().stat(guest_path(path), follow=follow)

    def copy_peer(self) -> CopyPeer:
        """The container as copies see it. Raises `StateError` where it has ended or is paused."""
        from firkin.core.copy.peer import GuestPeer

        self._check_running()
        return GuestPeer(self.vm, self.guest_id)

    async def pause(self) -> None:
        """Stop the VM's processors; nothing inside runs until `resume`. Raises `StateError` where it is paused or
        has ended."""
        self._check_running()
        await self.vm.pause()

    async def resume(self) -> None:
        """Let the VM run on after `pause`, its clock set to now. Raises `StateError` where it is not paused."""
        if not self.paused:
            raise StateError(f"container {self.id} is not paused")
        await self.vm.resume()
        # The guest's clock stood still with its processors.
        await self.vm.agent.set_time(time.time_ns())

    def _check_running(self) -> None:
        if self.process.status is not None:
            raise StateError(f"container {self.id} has ended: {self.process.status}", hint="start it again")
        self._check_not_paused()

    def _check_not_paused(self) -> None:
        if self.paused:
            raise StateError(f"container {self.id} is paused", hint=f"firkin unpause {self.id}")

    async def dial_vsock(self, port: int) -> Stream:
        """Connect to a program in the guest that listens on AF_VSOCK `port`. Raises `InvalidInputError` for a
        reserved port."""
        return await self.vm.dial(port)

    async def listen_vsock(self, port: int) -> Listener:
        """Take connections of guest programs to AF_VSOCK `port` of CID 1 or 2."""
        return await self.vm.listen(port)

    async def aclose(self) -> None:
        """Kill what runs, stop the VM, remove its folder; what was written to volumes and a writable layer is on their
        disks. Safe to call again."""
        try:
            # While the VM's folder can still tell of them.
            await self._sockets.aclose()
            if any(disk.direct for disk in self.vm.config.disks) and self.vm.running:
                if self.paused:
                    await self.resume()
                # The VM ends as by a power cut.
                await self.vm.agent.sync(timeout=_SYNC_LIMIT)
        finally:
            await self._stack.aclose()


def _number(id: ProcessId) -> int:
    digits = id.removeprefix("exec-")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0
