"""Bringing a saved container back, any number of times: what must differ in each clone does, before it thaws."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from firkin import faults
from firkin.core.assembly import assemble
from firkin.core.lowering import renamed
from firkin.core.name_files import name_requests
from firkin.core.networking import open_network
from firkin.core.option_inputs import container_options
from firkin.core.snapshot import save_container
from firkin.core.snapshots import Snapshots
from firkin.core.spec_reader import read_spec
from firkin.core.starting import adopt_process
from firkin.core.stdio import StdioSpec
from firkin.errors import InvalidInputError, StateError
from firkin.network.policy import Policy
from firkin.network.tcp import Connection
from firkin.types import ContainerId, Hostname, ProcessId, Signal, StateDirs, Stdio
from firkin.vmm import VirtualMachine, VmConfig, VmFolder
from firkin.vmm.host import boot_id
from firkin.vmm.saved import Saved, open_saved

if TYPE_CHECKING:
    from firkin.core.container import AsyncContainer
    from firkin.core.networking import ContainerNetwork
    from firkin.core.options import ContainerOptions
    from firkin.core.process import AsyncProcess
    from firkin.core.spec import RuntimeSpec

__all__ = ["Streams", "begin_restore", "finish_restore", "fork", "open_snapshot", "restore", "restore_saved"]

_T = TypeVar("_T", bound="AsyncContainer")
_LEASED = faults.declare("restore.leased", "the snapshot is open and checked, there is no VM yet")
_VM_READY = faults.declare("restore.vm-ready", "the clone answers, its containers are frozen")
_THAWED = faults.declare("restore.thawed", "the clone runs, nobody has its handle yet")
_MOST_AT_ONCE = 4
_MOST = 1024


class Streams(NamedTuple):
    """What the standard streams of a clone's first process are joined to; those of its source are gone."""

    stdin: Stdio = Stdio.NULL
    stdout: Stdio = Stdio.NULL
    stderr: Stdio = Stdio.NULL


class _Kept(NamedTuple):
    """The document of `firkin.core.snapshot.describe`, read."""

    guest_id: ContainerId
    image: str
    spec: RuntimeSpec
    options: ContainerOptions
    stop_signal: Signal
    hostname: Hostname | None
    accelerator: str
    processes: tuple[tuple[ProcessId, int], ...]
    connections: tuple[Connection, ...]


def open_snapshot(name: str, dirs: StateDirs) -> Saved:
    """The snapshot, checked, its files held open. Raises `NotFoundError`, `StateError`."""
    return open_saved(Snapshots(dirs).path(name), boot_id=boot_id(), what=f"snapshot {name}")


async def restore(
    kind: type[_T],
    name: str,
    *,
    container: str | None,
    hostname: str | None,
    streams: Streams,
    dirs: StateDirs | None,
) -> _T:
    """See `AsyncContainer.restore`."""
    dirs = dirs or StateDirs.default()
    return await restore_saved(
        kind, lambda: open_snapshot(name, dirs), container=container, hostname=hostname, streams=streams, dirs=dirs
    )


async def fork(container: _T, count: int, names: Sequence[str] | None) -> list[_T]:
    """See `AsyncContainer.fork`. Raises `InvalidInputError`."""
    if not 1 <= count <= _MOST:
        raise InvalidInputError(f"{count} is no number of clones", value=count, hint=f"1 to {_MOST}")
    if names is not None and len(set(names)) != count:
        raise InvalidInputError(f"{count} clones need as many names", value=names, hint="give each its own")
    at_once = asyncio.Semaphore(_MOST_AT_ONCE)
    kind, dirs = type(container), container.dirs
    with Snapshots(dirs).scratch(container.id) as folder:
        await save_container(container, folder, lasting=False)

        def opened() -> Saved:
            return open_saved(folder, boot_id=boot_id(), what=f"the fork of {container.id}")

        async def one(name: str | None) -> _T:
            async with at_once:
                return await restore_saved(kind, opened, container=name, hostname=None, streams=Streams(), dirs=dirs)

        wanted: list[str | None] = [*names] if names is not None else [None] * count
        tasks = [asyncio.ensure_future(one(name)) for name in wanted]
        done = await asyncio.gather(*tasks, return_exceptions=True)
    clones = [clone for clone in done if not isinstance(clone, BaseException)]
    failed = [error for error in done if isinstance(error, BaseException)]
    if failed:
        await asyncio.gather(*(clone.aclose() for clone in clones), return_exceptions=True)
        raise failed[0]
    return clones


async def restore_saved(
    kind: type[_T],
    opener: Callable[[], Saved],
    *,
    container: str | None,
    hostname: str | None,
    streams: Streams,
    dirs: StateDirs,
) -> _T:
    """A running clone of the container that `opener` finds saved."""
    id = ContainerId(container) if container is not None else ContainerId.random()
    async with AsyncExitStack() as stack:
        saved = await asyncio.to_thread(opener)
        stack.callback(saved.close)
        faults.point(_LEASED)
        begun = await begin_restore(saved, id, dirs, stack)
        faults.point(_VM_READY)
        clone = await finish_restore(kind, begun, saved, hostname, streams, dirs, stack)
        clone.own(stack.pop_all())
    return clone


async def begin_restore(
    saved: Saved, id: ContainerId, dirs: StateDirs, stack: AsyncExitStack
) -> tuple[VirtualMachine, ContainerNetwork | None]:
    """A VM called `id`, on a network of its own, whose container is frozen; `stack` undoes it.

    Raises as `AsyncContainer.restore`.
    """
    # First of all, so that a name in use costs nothing; `VirtualMachine.restore` takes the folder over.
    folder = VmFolder.claim(dirs, id)
    stack.callback(folder.remove)
    kept = _read(saved)
    config = _config(saved, kept)
    network = open_network(kept.options, folder.path, stack)
    if network is not None:
        config = network.joined(config)
    vm = await VirtualMachine.restore(config, saved, folder=folder, dirs=dirs)
    stack.push_async_callback(vm.aclose)
    return vm, network


async def finish_restore(
    kind: type[_T],
    begun: tuple[VirtualMachine, ContainerNetwork | None],
    saved: Saved,
    hostname: str | None,
    streams: Streams,
    dirs: StateDirs,
    stack: AsyncExitStack,
) -> _T:
    """The handle of the container that `begin_restore` has brought back, and which runs on from here."""
    vm, network = begun
    kept, id = _read(saved), ContainerId(vm.name)
    spec = renamed(kept.spec, str(Hostname(hostname) if hostname else kept.hostname or id.default_hostname()))
    epoch = saved.epoch + 1
    with vm.timings.phase("resume"):
        first, *others = await _resume(begun, kept, spec, epoch, streams, stack)
    faults.point(_THAWED)
    clone = await assemble(
        kind,
        vm.folder,
        stack,
        id=id,
        image=None,
        options=kept.options,
        spec=spec,
        vm=vm,
        process=first,
        stop_signal=kept.stop_signal,
        dirs=dirs,
        guest_id=kept.guest_id,
        image_name=kept.image,
        epoch=epoch,
        network=network,
    )
    clone.adopt(others)
    return clone


async def _resume(
    begun: tuple[VirtualMachine, ContainerNetwork | None],
    kept: _Kept,
    spec: RuntimeSpec,
    epoch: int,
    streams: Streams,
    stack: AsyncExitStack,
) -> list[AsyncProcess]:
    """Handles of the processes, the first one's streams joined; then what lets them run, in one go."""
    vm, network = begun
    before = [*vm.submit_networks()]
    before += [vm.agent.submit(request) for request in name_requests(kept.options, spec.root.path, spec.hostname)]
    joined = StdioSpec(*streams, terminal=kept.options.terminal)
    processes = []
    for id, pid in kept.processes:
        stdio = joined if id == "init" else StdioSpec()
        processes.append(await adopt_process(vm, kept.guest_id, id, pid, stdio))
        stack.push_async_callback(processes[-1].aclose)
    for answer in before:
        await answer
    # Its card has its address by now.
    if network is not None and kept.connections:
        network.network.break_off(kept.connections)
    await vm.agent.call(vm.resume_message(epoch=epoch, hostname=spec.hostname))
    return processes


def _read(saved: Saved) -> _Kept:
    """Raises `StateError` for a document that Firkin did not write: it may have come from anywhere."""
    document = saved.document
    try:
        given = document["options"]
        changed = {"hosts": list(map(_hosts_entry, given["hosts"])), "dns": _dns(given["dns"])}
        policy = None if given["policy"] is None else Policy.of(**given["policy"])
        options = container_options(**{**given, **changed, "policy": policy, "memory": int(given["memory"])})
        spec = read_spec(document["spec"])
        processes = tuple((ProcessId(entry["id"]), int(entry["pid"])) for entry in document["processes"])
        connections = tuple(map(_connection, document.get("connections", ())))
        if document["kind"] != "container" or not processes or processes[0][0] != "init":
            raise StateError(f"{saved.name} holds no container")
        return _Kept(
            guest_id=ContainerId(document["container"]),
            image=str(document["image"]),
            spec=spec,
            options=options,
            stop_signal=Signal(int(document["stop_signal"])),
            hostname=Hostname(spec.hostname) if document["hostname_given"] else None,
            accelerator=str(document["accelerator"]),
            processes=processes,
            connections=connections,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"{saved.name} says nothing sensible of its container: {error}") from error


def _connection(document: Any) -> Connection:
    remote, port, guest_port, seq = document
    if not (0 < port <= 0xFFFF and 0 < guest_port <= 0xFFFF and 0 <= seq <= 0xFFFFFFFF):
        raise ValueError(f"{document} is no connection")
    return Connection(str(ip_address(remote)), int(port), int(guest_port), int(seq))


def _hosts_entry(entry: Any) -> Any:
    from firkin.core.name_service import HostsEntry

    ip, names, comment = entry
    return HostsEntry(str(ip), tuple(map(str, names)), comment)


def _dns(document: Any) -> Any:
    from firkin.core.name_service import DnsConfig

    if document is None:
        return None
    lists = {key: tuple(map(str, document[key])) for key in ("nameservers", "search", "options")}
    return DnsConfig(**lists, domain=document["domain"])


def _config(saved: Saved, kept: _Kept) -> VmConfig:
    return VmConfig(
        cpus=saved.needs.cpus,
        memory=saved.needs.memory,
        disks=saved.disks(),
        accel=kept.accelerator,
        cpu_model=kept.options.cpu_model or "",
        nested=kept.options.nested,
    )
