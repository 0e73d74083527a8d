"""Clones and the world outside: a network of their own, connections of before are over, ports stay with the source."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from firkin import AsyncContainer, Stdio
from firkin.core.snapshots import Snapshots
from firkin.oci import Image
from firkin.types import StateDirs
from tests.network.world import World
from tests.network.world import world as make_world

pytestmark = pytest.mark.vm

# Two connections to an echo server outside: one is used, of the other a thread only waits for data.
PROGRAM = """
import socket, sys, threading
used, waiting = (socket.create_connection(("1.2.3.4", 7), timeout=60) for _ in range(2))
waiting.settimeout(None)
ended = threading.Event()
def wait():
    try: found = "data" if waiting.recv(1) else "end"
    except ConnectionResetError: found = "reset"
    ended.found = found; ended.set()
threading.Thread(target=wait, daemon=True).start()
def talk(sock):
    try:
        sock.sendall(b"x")
        return "echo" if sock.recv(1) == b"x" else "end"
    except OSError as error:
        return "reset" if isinstance(error, (ConnectionResetError, BrokenPipeError)) else repr(error)
print("ready", flush=True)
for line in sys.stdin:
    match line.strip():
        case "used": print(talk(used), flush=True)
        case "waiting": print("waits" if not ended.wait(0.5) else ended.found, flush=True)
        case "ended": ended.wait(60); print(getattr(ended, "found", "waits"), flush=True)
        case "new": print(talk(socket.create_connection(("1.2.3.4", 7), timeout=60)), flush=True)
        case "card": print(open("/sys/class/net/eth0/address").read().strip(), flush=True)
"""


@pytest.fixture(scope="module")
def world(debian_python_image: Image) -> Iterator[World]:
    """The test's thread is inside until the module's end. Needs root."""
    with make_world() as made:
        yield made


async def ask(container: AsyncContainer, question: str) -> str:
    process = container.process
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.write(f"{question}\n".encode())
    return (await process.stdout.read()).decode().strip()


@asynccontextmanager
async def connected() -> AsyncIterator[AsyncContainer]:
    async with await AsyncContainer.launch(
        "debian-python", ["python3", "-c", PROGRAM], stdin=Stdio.PIPED, stdout=Stdio.PIPED, publish=["127.0.0.1:0:80"]
    ) as source:
        assert source.process.stdout is not None
        assert await source.process.stdout.read() == b"ready\n"
        assert await ask(source, "used") == "echo"
        yield source


@pytest.mark.timeout(300)
async def test_connections_of_before_are_reset_in_each_clone(world: World, home: object) -> None:
    name, dirs = f"connected-{os.getpid()}", StateDirs.default()
    async with connected() as source:
        await source.snapshot(name)
        # The source notices nothing.
        assert [await ask(source, what) for what in ("used", "waiting")] == ["echo", "waits"]
        cards = [await ask(source, "card")]
        try:
            for _ in range(2):
                async with await AsyncContainer.restore(name, stdin=Stdio.PIPED, stdout=Stdio.PIPED) as clone:
                    # Also the one of which nothing is asked, whose end only a packet can tell.
                    assert [await ask(clone, what) for what in ("ended", "used", "new")] == ["reset", "reset", "echo"]
                    cards.append(await ask(clone, "card"))
                    assert clone.network is not None
                    assert clone.network.network.mac == cards[-1]
                    assert clone.ports == ()
        finally:
            Snapshots(dirs).remove(name)
        assert len(set(cards)) == 3
        assert [await ask(source, what) for what in ("used", "waiting")] == ["echo", "waits"]


async def test_a_port_stays_with_the_source_and_a_clone_gets_its_own(busybox_image: Image) -> None:
    serve = "while true; do hostname | nc -l -p 80; done"
    async with await AsyncContainer.launch("busybox", ["sh", "-c", serve], publish=["127.0.0.1:0:80"]) as source:
        (clone,) = await source.fork()
        async with clone:
            assert clone.ports == ()
            (own,) = await clone.publish("127.0.0.1:0:80")
            (of_source,) = source.ports
            for container, port in ((source, of_source), (clone, own)):
                assert await asyncio.to_thread(_received, port.host_port) == f"{container.spec.hostname}\n"


def _received(port: int) -> str:
    """What the server sends, once it listens: between two connections it does not."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.shutdown(socket.SHUT_WR)
            try:
                if data := sock.recv(100):
                    return data.decode()
            except ConnectionResetError:
                pass
        time.sleep(0.05)
    return ""
