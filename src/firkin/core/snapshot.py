"""Saving a container: its guest quiesced, its VM saved, its guest resumed, or stopped as asked."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firkin import faults
from firkin.core.snapshots import Snapshots
from firkin.errors import AgentError, InvalidInputError, StateError
from firkin.vmm.save import SaveReport, check_savable, save

if TYPE_CHECKING:
    from firkin.core.container import AsyncContainer

__all__ = ["describe", "save_container", "snapshot"]

_QUIESCED = faults.declare("snapshot.quiesced", "the container stands still, its VM is not saved yet")
# Seconds for the frozen tasks to stand still and for what is dirty to reach the disks of a slow host.
_QUIESCE_LIMIT = 60.0
# A process that is just being started is waited for so long.
_START_LIMIT = 10.0


async def snapshot(container: AsyncContainer, name: str, *, stop: bool = False) -> SaveReport:
    """See `AsyncContainer.snapshot`."""
    snapshots = Snapshots(container.dirs)
    # Everything that can be refused is, before anything stands still.
    snapshots.check_free(name)
    _check(container)
    with snapshots.making(name) as folder:
        report = await save_container(container, folder, stop=stop)
    if stop:
        await container.vm.kill()
    return report


async def save_container(
    container: AsyncContainer, folder: Path, *, stop: bool = False, lasting: bool = True
) -> SaveReport:
    """Save `container` into the empty `folder`; it runs on unless `stop`. Raises `StateError`, `InvalidInputError`."""
    _check(container)
    vm = container.vm
    async with _quiesced(container, stop=stop):
        faults.point(_QUIESCED)
        return await save(vm, folder, describe(container), epoch=container.epoch, go_on=not stop, lasting=lasting)


def _check(container: AsyncContainer) -> None:
    if container.process.status is not None:
        raise StateError(
            f"container {container.id} has ended: {container.process.status}", hint="there is nothing to save"
        )
    if container.paused:
        raise StateError(f"container {container.id} is paused", hint=f"firkin unpause {container.id}")
    if container.sockets:
        paths = ", ".join(str(relay.guest) for relay in container.sockets)
        # Who serves such a socket is not saved with it, and one path of the host can't lead to several clones.
        raise InvalidInputError(
            f"a container with a relayed socket ({paths}) can't be saved", hint="end it first: `stop_socket`"
        )
    check_savable(container.vm.config)


@asynccontextmanager
async def _quiesced(container: AsyncContainer, *, stop: bool) -> AsyncIterator[None]:
    vm = container.vm
    began = time.monotonic()
    while True:
        try:
            # Streams of one that goes on stay joined; in a clone its HELLO takes them off.
            await vm.agent.quiesce(detach_stdio=stop, timeout=_QUIESCE_LIMIT)
            break
        except AgentError as error:
            if error.errno != errno.EAGAIN or time.monotonic() > began + _START_LIMIT:
                raise
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        if vm.running and not vm.link.paused:
            await vm.agent.call(vm.resume_message(epoch=container.epoch))


def describe(container: AsyncContainer) -> dict[str, Any]:
    """What a restore has to know again, as JSON."""
    import json

    options, config = container.options, container.vm.config
    return {
        "kind": "container",
        "container": container.guest_id,
        "source": container.id,
        "image": str(container.image) if container.image is not None else container.image_name,
        "spec": json.loads(container.spec.to_json()),
        "stop_signal": int(container.stop_signal),
        "hostname_given": options.hostname is not None,
        "options": {
            "cpus": options.cpus,
            "memory": int(options.memory),
            "labels": dict(options.labels),
            "stop_timeout": options.stop_timeout,
            "terminal": options.terminal,
            "cpu_model": options.cpu_model,
            "nested": options.nested,
            "hosts": [[entry.ip, list(entry.hostnames), entry.comment] for entry in options.hosts],
            "dns": None if options.dns is None else asdict(options.dns),
            "network": options.network,
            "mtu": options.mtu,
            # As it is now; it may have been changed since the start.
            "policy": container.network.network.policy.as_document() if container.network else None,
        },
        # What the guest will believe to have; a clone resets them.
        "connections": [list(each) for each in container.network.connections] if container.network else [],
        "accelerator": container.vm.host.accelerator,
        "cpu_model": config.cpu_model,
        "processes": [
            {"id": process.id, "pid": process.pid} for process in container.processes if process.status is None
        ],
    }
