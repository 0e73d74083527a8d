"""What the VM tests of the link need of a guest: processes in a container of busybox, and connections anew."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from firkin.vminitd.agent import Agent
from firkin.vminitd.link import Link
from firkin.vminitd.stream import Stream
from firkin.vmm.machine import VirtualMachine

__all__ = ["process", "relink"]


async def relink(vm: VirtualMachine, sentinel: bytes, *, ping_limit: float = 10.0) -> Link:
    """A new connection to the VM's agent. The one before is to be ended first: QEMU serves one at a time."""
    return await Link.connect(
        vm.folder.connect("agent.sock"), sentinel=sentinel, boot_log=vm.boot_log_tail, ping_limit=ping_limit, timeout=20
    )


@asynccontextmanager
async def process(agent: Agent, name: str, *command: str) -> AsyncIterator[tuple[Stream, Stream]]:
    """Run a command in a container of its own; its stdin and stdout. It must end by itself."""
    link = agent.link
    root = f"/run/container/{name}/rootfs"
    spec = {
        "ociVersion": "1.0.2",
        "root": {"path": root},
        "linux": {"cgroupsPath": f"/firkin/{name}", "namespaces": [{"type": "pid"}, {"type": "mount"}]},
        "process": {"args": list(command), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
    }
    stdin, stdout = link.allocate_port(), link.allocate_port()
    async with link.listen(stdin) as first, link.listen(stdout) as second:
        mounted = agent.mount("ext4", "serial:disk0", root, mkdir=True)
        encoded = json.dumps(spec).encode()
        created = agent.create_process(name, "init", encoded, start=True, stdin_port=stdin, stdout_port=stdout)
        await mounted
        await created
        async with await first.accept() as input, await second.accept() as output:
            yield input, output
    exited = await agent.wait_process(name, "init")
    assert exited.code == 0, exited
    await agent.delete_process(name, "init")
