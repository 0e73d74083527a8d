"""A VM with a busybox container's root in it, spoken to by the agent's own calls: nothing of `firkin.core` is used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from firkin.oci import Image, ImageStore
from firkin.vminitd import Call, Listener, Stream
from firkin.vminitd._generated import agent_pb2 as pb
from firkin.vmm import Disk, VirtualMachine, VmConfig

CONTAINER = "c"
ROOT = f"/run/container/{CONTAINER}/rootfs"
LIMIT = 30.0
_MIB = 1 << 20
_ENV = ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "TERM=xterm"]
_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
]


def process_json(args: list[str], *, terminal: bool = False) -> dict[str, Any]:
    return {"terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": args, "env": _ENV, "cwd": "/"}


def config_json(args: list[str], *, terminal: bool = False, resources: dict[str, Any] | None = None) -> dict[str, Any]:
    """A small config.json; the network namespace is the VM's."""
    return {
        "ociVersion": "1.0.2",
        "process": process_json(args, terminal=terminal),
        "root": {"path": ROOT},
        "hostname": "guest",
        "mounts": _MOUNTS,
        "linux": {
            "cgroupsPath": f"/firkin/{CONTAINER}",
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc")],
            "resources": resources or {},
        },
    }


async def read_all(stream: Stream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


async def collect(listener: Listener) -> bytes:
    """What comes on the stream that the guest dials, up to its end."""
    async with await listener.accept() as stream:
        return await read_all(stream)


@dataclass
class Started:
    """A process, its listeners (standard input, output, error) and the two calls about it."""

    id: str
    created: Call[pb.ProcessStarted]
    exited: Call[pb.ProcessExit]
    listeners: list[Listener]


@dataclass
class Result:
    stdout: bytes
    stderr: bytes
    exit: pb.ProcessExit


@dataclass
class Guest:
    vm: VirtualMachine
    _count: int = field(default=0)

    async def call(self, request: Any, timeout: float = LIMIT) -> Any:
        return await self.vm.agent.call(request, timeout)

    def start(
        self,
        args: list[str],
        *,
        process: str = "",
        stdin: bool = False,
        pty: tuple[int, int] | None = None,
        start: bool = True,
        resources: dict[str, Any] | None = None,
    ) -> Started:
        """Ask for a process and its end, without waiting. `process`: "init", else a new id."""
        self._count += 1
        name = process or f"exec-{self._count}"
        ports = [self.vm.link.allocate_port() for _ in range(3)]
        terminal = pty is not None
        if name == "init":
            spec = config_json(args, terminal=terminal, resources=resources)
        else:
            spec = process_json(args, terminal=terminal)
        request = pb.CreateProcess(
            container=CONTAINER,
            process=name,
            spec_json=json.dumps(spec).encode(),
            stdin_port=ports[0] if stdin or terminal else 0,
            stdout_port=0 if terminal else ports[1],
            stderr_port=0 if terminal else ports[2],
            start=start,
            pty_columns=pty[0] if pty else 0,
            pty_rows=pty[1] if pty else 0,
        )
        listeners = [self.vm.link.listen(port) for port in ports]
        created = self.vm.agent.submit(request, timeout=LIMIT)
        exited = self.vm.agent.submit(pb.WaitProcess(container=CONTAINER, process=name))
        return Started(name, created, exited, listeners)

    async def finish(self, started: Started, stdin: bytes | None = None) -> Result:
        """Feed, read and await a started process, and forget it."""

        async def feed() -> None:
            if stdin is not None:
                async with await started.listeners[0].accept() as stream:
                    await stream.write(stdin)
                    await stream.end()
                    await read_all(stream)

        outputs = asyncio.gather(collect(started.listeners[1]), collect(started.listeners[2]), feed())
        try:
            await started.created
            out, err, _ = await outputs
            end = await started.exited
        finally:
            outputs.cancel()
            for listener in started.listeners:
                listener.close()
        if started.id != "init":
            await self.call(pb.DeleteProcess(container=CONTAINER, process=started.id))
        return Result(out, err, end)

    async def run(self, *args: str, stdin: bytes | None = None) -> Result:
        return await self.finish(self.start(list(args), stdin=stdin is not None), stdin)

    async def shell(self, script: str) -> str:
        """Standard output of a script that must succeed."""
        result = await self.run("sh", "-ec", script)
        assert result.exit.code == 0, result.stderr.decode()
        return result.stdout.decode()

    async def kill(self, process: str, signal: int, *, all: bool = False) -> None:
        await self.call(pb.KillProcess(container=CONTAINER, process=process, signal=signal, all=all))

    async def launch(self, resources: dict[str, Any] | None = None) -> None:
        """Mount the root and start the container with a first process that only sleeps."""
        await self.call(
            pb.Mount(type="ext4", source="serial:disk0", destination=ROOT, options=["rw", "noatime"], mkdir=True)
        )
        started = self.start(["sleep", "100000"], process="init", resources=resources)
        for listener in started.listeners:
            listener.close()
        await started.created

    async def remove(self) -> None:
        """Delete the container."""
        await self.kill("init", 9)
        await self.call(pb.WaitProcess(container=CONTAINER, process="init"))
        await self.call(pb.DeleteProcess(container=CONTAINER, process="init"))


@asynccontextmanager
async def booted(
    store: ImageStore, image: Image, *, launch: bool = True, fork: bool = True, cmdline: str = ""
) -> AsyncIterator[Guest]:
    """A VM with `image` as its first disk; with `launch` it is resumed and the container runs."""
    with store.rootfs(image) as lease:
        config = VmConfig(cpus=1, memory=256 * _MIB, disks=(Disk(lease.path),), cmdline_extra=cmdline)
        async with await VirtualMachine.start(config, fork=fork) as vm:
            guest = Guest(vm)
            if launch:
                await guest.call(vm.resume_message())
                await guest.launch()
            yield guest
