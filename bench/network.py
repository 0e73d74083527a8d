"""The guest's network: bytes in and out with our stack and with passt alone behind the same card; names; ports.

Both run in network namespaces made here, with servers "outside", so that nothing but the two differs. Needs root and
the image `debian-python` of `tools/testimages.sh`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bench.harness import Result, benchmark
from firkin.network import Network, NetworkPlan, Policy
from firkin.network.plan import INSIDE, LARGEST_MTU
from firkin.network.ports import bind
from firkin.oci.store import ImageStore
from firkin.types.state import StateDirs
from firkin.vminitd.stream import Stream
from firkin.vmm.config import Disk, VmConfig
from firkin.vmm.config import Network as Card
from firkin.vmm.machine import VirtualMachine
from tests.network.guest import SCANNER
from tests.network.world import world

_BYTES = 48 << 20
_PROGRAM = ["python3", "-u", "-c", SCANNER]
_ROOT = Path(__file__).resolve().parent.parent
# Rules that a real policy has, all of which are asked.
_POLICY = Policy.of(allow_net=["8.8.8.0/24", "1.2.3.0/24"], deny_net=["10.0.0.0/8"], allow_domain=["*.example"])


class _Guest:
    """The scanner of the tests in a VM on one card."""

    def __init__(self, stdin: Stream, stdout: Stream) -> None:
        self._stdin, self._stdout = stdin, stdout

    async def do(self, what: str, **given: object) -> Any:
        await self._stdin.write(json.dumps({"do": what, **given}).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            line += await self._stdout.read()
        return json.loads(line)

    async def rate(self, what: str, port: int) -> float:
        """Megabytes a second."""
        began = time.perf_counter()
        await self.do(what, address="1.2.3.4", port=port, size=_BYTES)
        return _BYTES / 1e6 / (time.perf_counter() - began)


@asynccontextmanager
async def _guest(cable: socket.socket, mac: str) -> AsyncIterator[_Guest]:
    dirs = StateDirs.default()
    store = ImageStore(dirs)
    images = Path(os.environ.get("FIRKIN_TEST_IMAGES") or _ROOT / ".build" / "images")
    (image,) = store.load(images / "debian-python", name="debian-python")
    sides = INSIDE.values()
    card = Card(
        cable.fileno(),
        mac,
        tuple(side.guest_cidr for side in sides),
        tuple(side.gateway_text for side in sides),
        LARGEST_MTU,
    )
    root = "/run/container/bench/rootfs"
    spec = {
        "ociVersion": "1.0.2",
        "root": {"path": root},
        "linux": {"cgroupsPath": "/firkin/bench", "namespaces": [{"type": "pid"}, {"type": "mount"}]},
        "mounts": [{"destination": "/dev", "type": "devtmpfs", "source": "dev"}],
        "process": {"args": _PROGRAM, "cwd": "/", "env": ["PATH=/usr/bin:/bin"], "user": {"uid": 0, "gid": 0}},
    }
    with store.rootfs(image) as lease:
        config = VmConfig(disks=(Disk(lease.path),), networks=(card,))
        async with await VirtualMachine.start(config, dirs=dirs) as vm:
            await asyncio.gather(vm.agent.submit(vm.resume_message()), *vm.submit_networks())
            await vm.agent.mount("ext4", "serial:disk0", root, mkdir=True)
            stdin, stdout = vm.link.allocate_port(), vm.link.allocate_port()
            async with vm.link.listen(stdin) as first, vm.link.listen(stdout) as second:
                await vm.agent.create_process(
                    "bench", "init", json.dumps(spec).encode(), start=True, stdin_port=stdin, stdout_port=stdout
                )
                async with await first.accept() as sink, await second.accept() as source:
                    yield _Guest(sink, source)


@asynccontextmanager
async def _ours(policy: Policy = _POLICY) -> AsyncIterator[tuple[_Guest, Network]]:
    network = Network(NetworkPlan(policy=policy, servers=("9.9.9.9",)))
    try:
        network.start()
        async with _guest(network.guest, network.mac) as guest:
            yield guest, network
    finally:
        network.close()


@asynccontextmanager
async def _passt() -> AsyncIterator[_Guest]:
    ours, theirs = socket.socketpair()
    side = INSIDE[4]
    options = ["-f", "-q", "-F", str(theirs.fileno()), "--no-map-gw", "-4", "-n", str(side.prefix)]
    options += ["-a", socket.inet_ntoa(side.guest), "-g", side.gateway_text, "-t", "none", "-u", "none"]
    passt = await asyncio.create_subprocess_exec(
        "passt", *options, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL
    )
    try:
        theirs.close()
        async with _guest(ours, "02:00:00:00:00:07") as guest:
            yield guest
    finally:
        ours.close()
        passt.kill()
        await passt.wait()


@benchmark(rounds=7)
async def net_throughput(rounds: int) -> list[Result]:
    """One connection of the guest, each way, in turns with a guest behind passt."""
    samples: dict[tuple[str, int], list[float]] = {}
    ways = (("in", "pull", 19), ("out", "push", 9))
    with world():
        async with AsyncExitStack() as stack:
            guest, _ = await stack.enter_async_context(_ours())
            peer = await stack.enter_async_context(_passt())
            for number in range(rounds + 1):
                pair = [(0, guest), (1, peer)]
                for index, each in pair if number % 2 else reversed(pair):
                    for way, what, port in ways:
                        rate = await each.rate(what, port)
                        if number:
                            samples.setdefault((way, index), []).append(rate)
    results = []
    for way, _, _ in ways:
        mine, theirs = samples[way, 0], samples[way, 1]
        rates = {"unit": "MB/s", "higher_is_better": True}
        results.append(Result.of(f"net_{way}_mbps", mine, unit="MB/s", higher_is_better=True))
        ratios = [ours / other for ours, other in zip(mine, theirs, strict=True)]
        results.append(Result.of(f"net_{way}_ratio", ratios, unit="", target=0.85, higher_is_better=True))
        results.append(Result.of(f"passt_{way}_mbps", theirs, **rates))  # type: ignore[arg-type]
    return results


@benchmark(rounds=30)
async def net_latency(rounds: int) -> list[Result]:
    """A name asked for by the guest and answered by a server outside; a connection to a published port and its echo."""
    with world() as outside:
        outside.names(www_example=[("www.example", "A", 60, "1.2.3.4")])
        async with _ours() as (guest, network):
            names = await guest.do("timed", server=INSIDE[4].gateway_text, text="www.example", rounds=rounds)
            await guest.do("echo", port=7)
            network.publish(bind("127.0.0.1", 0, 7, "tcp"))
            port = network.ports[0].host_port
            connects = [await asyncio.to_thread(_echo, port) for _ in range(rounds + 1)]
    assert statistics.median(names) > 0
    return [Result.of("dns_ms", names), Result.of("port_connect_ms", connects[1:])]


def _echo(port: int) -> float:
    """Milliseconds from the call until what was sent has come back."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        return (time.perf_counter() - began) * 1e3
