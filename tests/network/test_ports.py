"""Published ports: many connections, half-close, slow readers, UDP; added and given back; nothing stays."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from firkin import AsyncContainer, Stdio
from firkin.core.publication import PortPublication
from firkin.errors import InvalidInputError, NotFoundError, StateError
from firkin.oci import Image
from firkin.types import StateDirs
from firkin.vmm import reclaim
from tests.conftest import GONE_WITHIN

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

# TCP 7 gives back what it was sent, once that has ended; 8 the peer's address, then it reads; 9 is slow to read; 19
# sends 8 MiB; UDP 7 gives back each datagram.
SERVER = """
import asyncio, socket

async def echo(reader, writer):
    data = await reader.read()
    writer.write(data); await writer.drain(); writer.close()

async def who(reader, writer):
    writer.write(repr(writer.get_extra_info("peername")).encode()); writer.write_eof()
    await reader.read(); writer.close()

async def slow(reader, writer):
    await asyncio.sleep(1.0)
    total = 0
    while data := await reader.read(1 << 20):
        total += len(data)
    writer.write(b"%d" % total); writer.close()

async def much(reader, writer):
    block = bytes(1 << 16)
    for _ in range(128):
        writer.write(block); await writer.drain()
    writer.close()

class Udp(asyncio.DatagramProtocol):
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, peer): self.transport.sendto(data, peer)

async def main():
    for port, work in ((7, echo), (8, who), (9, slow), (19, much)):
        await asyncio.start_server(work, "0.0.0.0", port, backlog=2048)
    await asyncio.get_running_loop().create_datagram_endpoint(Udp, local_addr=("0.0.0.0", 7))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

CLI = "from firkin.cli import main; raise SystemExit(main())"


class Box:
    """A container that serves, and where its ports are on the host."""

    def __init__(self, container: AsyncContainer) -> None:
        self.container = container

    def port(self, guest: int, protocol: str = "tcp") -> int:
        (found,) = [
            port.host_port
            for port in self.container.ports
            if (port.guest_port, port.protocol) == (guest, protocol) and port.host_ip == "127.0.0.1"
        ]
        return found

    async def open(self, guest: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port(guest))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(debian_python_image: Image) -> AsyncIterator[Box]:
    async with await AsyncContainer.launch(
        "localhost/debian-python",
        ["python3", "-u", "-c", SERVER],
        publish=["7", "8", "9", "19", "7/udp"],
        rlimits=["nofile=4096"],
        stdout=Stdio.PIPED,
        stderr=Stdio.INHERIT,
    ) as container:
        assert container.process.stdout is not None
        said = b""
        # Python may write the line's end by itself.
        while not said.endswith(b"\n"):
            data = await container.process.stdout.read()
            assert data, said
            said += data
        assert said == b"ready\n"
        yield Box(container)


async def test_half_close_and_the_address_that_the_guest_sees(box: Box) -> None:
    reader, writer = await box.open(7)
    writer.write(b"to the end")
    await writer.drain()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.3)
    writer.write_eof()
    assert await reader.read() == b"to the end"
    writer.close()
    reader, writer = await box.open(8)
    assert (await reader.read()).startswith(b"('192.0.0.1', ")
    writer.close()


async def test_a_thousand_connections_at_once(box: Box) -> None:
    async def one(number: int) -> bool:
        reader, writer = await box.open(7)
        await all_open.wait()
        data = b"%d." % number * 50
        writer.write(data)
        writer.write_eof()
        same = await reader.read() == data
        writer.close()
        return same

    all_open = asyncio.Barrier(1000)
    assert all(await asyncio.wait_for(asyncio.gather(*map(one, range(1000))), 120))


async def test_a_slow_reader_in_the_guest_loses_nothing(box: Box) -> None:
    reader, writer = await box.open(9)
    for _ in range(128):
        writer.write(bytes(1 << 16))
        await writer.drain()
    writer.write_eof()
    assert int(await asyncio.wait_for(reader.read(), 60)) == 128 << 16
    writer.close()


async def test_a_slow_reader_on_the_host_loses_nothing(box: Box) -> None:
    reader, writer = await box.open(19)
    await asyncio.sleep(1.0)
    total = 0
    while data := await asyncio.wait_for(reader.read(1 << 20), 60):
        total += len(data)
    assert total == 128 << 16
    writer.close()


async def test_udp_of_several_clients(box: Box) -> None:
    loop = asyncio.get_running_loop()
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
    try:
        for number, client in enumerate(clients):
            client.setblocking(False)
            client.connect(("127.0.0.1", box.port(7, "udp")))
            client.send(b"from %d" % number)
        for number, client in enumerate(clients):
            assert await asyncio.wait_for(loop.sock_recv(client, 100), 10) == b"from %d" % number
    finally:
        for client in clients:
            client.close()


async def test_udp_of_a_thousand_clients(box: Box) -> None:
    """Each gets its own answer, at most 50 at a time: a datagram for which there is no room is lost, as UDP may."""
    loop, room = asyncio.get_running_loop(), asyncio.Semaphore(50)

    async def one(client: socket.socket, number: int) -> bool:
        async with room:
            client.send(b"%d" % number)
            return await loop.sock_recv(client, 100) == b"%d" % number

    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(1000)]
        for client in clients:
            client.setblocking(False)
            client.connect(("127.0.0.1", box.port(7, "udp")))
        async with asyncio.timeout(120):
            assert all(await asyncio.gather(*map(one, clients, range(1000))))
            # The first ones' way back is still theirs.
            assert all(await asyncio.gather(*map(one, clients, range(1000, 2000))))


async def test_a_port_nobody_listens_on_resets(box: Box) -> None:
    (port,) = await box.container.publish("99")

    async def call() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.host_port)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()

    try:
        # The host's kernel takes the call; the guest's reset may be there before asyncio has looked how that went.
        with pytest.raises(ConnectionResetError):
            await call()
    finally:
        await box.container.unpublish(port)


async def test_added_and_given_back_while_it_runs(box: Box) -> None:
    first, second = await box.container.publish("127.0.0.2:7-8")
    assert (first.guest_port, second.guest_port, first.host_ip) == (7, 8, "127.0.0.2")
    reader, writer = await asyncio.open_connection("127.0.0.2", first.host_port)
    await box.container.unpublish(first)
    await box.container.unpublish(PortPublication(8, host_ip="127.0.0.2"))
    writer.write(b"goes on")
    writer.write_eof()
    assert await reader.read() == b"goes on"
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", first.host_port)
    with pytest.raises(NotFoundError):
        await box.container.unpublish(first)


async def test_a_port_in_use_is_an_error_before_the_boot(box: Box) -> None:
    with pytest.raises(StateError, match="it is in use"):
        await AsyncContainer.launch("busybox", ["true"], publish=["7", f"{box.port(7)}:80"])
    with pytest.raises(StateError, match="it is in use"):
        await box.container.publish(f"{box.port(7)}:80")
    with pytest.raises(InvalidInputError):
        await box.container.publish("x")


def _free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False


async def test_nothing_is_left_on_ports_after_a_kill(box: Box, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", CLI, "run", "--rm", "-p", f"{port}:80", "busybox", "sleep", "60"]
    owner = await asyncio.to_thread(subprocess.Popen, command)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        writer.close()
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        await asyncio.to_thread(owner.wait)
    # A child that the owner was just starting has its descriptors until it is another program: a moment, which is
    # waited for. A connection that the killed one ended first lingers in the kernel (TIME_WAIT), which SO_REUSEADDR
    # passes over, as Firkin's own publishing does.
    async with asyncio.timeout(GONE_WITHIN):
        while not _free(port):  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.01)
    # The dead owner's folder goes with whoever looks next.
    assert reclaim(StateDirs.default())


async def test_the_commands(box: Box) -> None:
    def firkin(*words: str) -> str:
        done = subprocess.run([sys.executable, "-c", CLI, *words], capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else f"{done.returncode}: {done.stderr}"

    name = box.container.id
    listed = await asyncio.to_thread(firkin, "port", name)
    assert ["7/udp", f"127.0.0.1:{box.port(7, 'udp')}"] in [line.split() for line in listed.splitlines()]
    assert await asyncio.to_thread(firkin, "port", name, "8") == f"127.0.0.1:{box.port(8)}\n"
    added = await asyncio.to_thread(firkin, "port", "--add", "127.0.0.3:8", "--format", "json", name)
    assert '"host_ip": "127.0.0.3"' in added
    assert await asyncio.to_thread(firkin, "port", "--rm", "127.0.0.3:8", name) == ""
    assert await asyncio.to_thread(firkin, "network", "--deny-net", "1.2.3.0/24", name) == f"{name}\n"
    assert '"1.2.3.0/24"' in await asyncio.to_thread(firkin, "network", name)
    assert (await asyncio.to_thread(firkin, "network", "--deny-net", "nonsense", name)).startswith("125: firkin: ")
    assert await asyncio.to_thread(firkin, "network", "--default", name) == f"{name}\n"
