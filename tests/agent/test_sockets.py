"""Sockets between host and guest: AF_VSOCK by the kernel's loopback, Unix sockets of a container, both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from firkin.errors import AgentError, StreamResetError
from firkin.oci import Image, ImageStore
from firkin.vminitd._generated import agent_pb2 as pb
from tests.agent.guest import CONTAINER, Guest, Started, booted, read_all

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

SHOUT = """
import socket, sys
server = socket.socket({family})
server.bind({address})
server.listen(64)
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    while data := connection.recv(65536):
        connection.sendall(data.upper())
    connection.sendall(b"<end>")
    connection.close()
"""
ASK = """
import socket
client = socket.socket({family})
client.connect({address})
client.sendall(b"from the guest")
client.shutdown(socket.SHUT_WR)
answer = b""
while data := client.recv(65536):
    answer += data
print(answer.decode())
"""
VSOCK = "socket.AF_VSOCK, socket.SOCK_STREAM"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(store: ImageStore, debian_python_image: Image) -> AsyncIterator[Guest]:
    async with booted(store, debian_python_image) as guest:
        yield guest


async def serving(guest: Guest, family: str, address: str) -> Started:
    """A program of the guest that answers in capitals."""
    started = guest.start(["python3", "-c", SHOUT.format(family=family, address=address)])
    stream = await started.listeners[1].accept()
    assert await stream.readexactly(6) == b"ready\n"
    return started


async def ask(guest: Guest, port: int, text: bytes) -> bytes:
    async with await guest.vm.link.open(port) as stream:
        await stream.write(text)
        await stream.end()
        return await read_all(stream)


async def test_the_host_reaches_a_vsock_program(guest: Guest) -> None:
    await serving(guest, VSOCK, "(socket.VMADDR_CID_ANY, 5000)")
    assert await ask(guest, 5000, b"hello") == b"HELLO<end>"
    answers = await asyncio.gather(*(ask(guest, 5000, b"%d" % n * 50_000) for n in range(4)))
    assert answers == [b"%d" % n * 50_000 + b"<end>" for n in range(4)]


@pytest.mark.parametrize("cid", [1, 2])
async def test_a_program_reaches_the_host(guest: Guest, cid: int) -> None:
    port = 6000 + cid
    listener = guest.vm.link.listen(port)
    await guest.call(pb.VsockListen(port=port))
    asking = asyncio.create_task(guest.run("python3", "-c", ASK.format(family=VSOCK, address=(cid, port))))
    async with await listener.accept() as stream:
        assert await read_all(stream) == b"from the guest"
        await stream.write(b"from the host")
        await stream.end()
    assert (await asking).stdout == b"from the host\n"
    listener.close()
    await guest.call(pb.StopProxy(id=f"vsock:{port}"))
    refused = await guest.run("python3", "-c", ASK.format(family=VSOCK, address=(cid, port)))
    assert refused.exit.code == 1


async def test_nobody_listens(guest: Guest) -> None:
    with pytest.raises(StreamResetError) as caught:
        await ask(guest, 5999, b"hello")
    assert caught.value.errno == 111


async def test_reserved_ports(guest: Guest) -> None:
    for port in (0, 1024, 0x1000_0000, 0x2000_0000):
        with pytest.raises(AgentError, match="reserved"):
            await guest.call(pb.VsockListen(port=port))
    with pytest.raises(StreamResetError):
        await ask(guest, 0x1800_0000, b"hello")


async def test_a_unix_socket_into_the_guest(guest: Guest) -> None:
    listener = guest.vm.link.listen(guest.vm.link.allocate_port())
    where = {"container": CONTAINER, "path": "/tmp/deep/in.sock"}
    request = pb.ProxySocket(id="in", port=listener.port, into_guest=True, mode=0o640, uid=0, gid=4, **where)
    await guest.call(request)
    with pytest.raises(AgentError, match="exists"):
        await guest.call(request)
    assert await guest.shell("stat -c '%a %u %g %F' /tmp/deep/in.sock") == "640 0 4 socket\n"
    address = '"/tmp/deep/in.sock"'
    asking = asyncio.create_task(guest.run("python3", "-c", ASK.format(family="socket.AF_UNIX", address=address)))
    async with await listener.accept() as stream:
        assert await read_all(stream) == b"from the guest"
        await stream.write(b"x" * 300_000)
        await stream.end()
    assert (await asking).stdout == b"x" * 300_000 + b"\n"
    await guest.call(pb.StopProxy(id="in"))
    assert await guest.shell("ls /tmp/deep") == ""
    with pytest.raises(AgentError, match="no proxy"):
        await guest.call(pb.StopProxy(id="in"))
    listener.close()


async def test_a_unix_socket_out_of_the_guest(guest: Guest) -> None:
    port = guest.vm.link.allocate_port()
    await guest.call(pb.ProxySocket(id="out", container=CONTAINER, path="/tmp/out.sock", port=port))
    with pytest.raises(StreamResetError) as caught:
        await ask(guest, port, b"too early")
    assert caught.value.errno == 111
    await serving(guest, "socket.AF_UNIX", '"/tmp/out.sock"')
    assert await ask(guest, port, b"hello") == b"HELLO<end>"
    await guest.call(pb.StopProxy(id="out"))


async def test_what_is_no_socket_stays(guest: Guest) -> None:
    await guest.shell("echo keep > /tmp/file")
    request = pb.ProxySocket(id="no", container=CONTAINER, path="/tmp/file", port=9, into_guest=True)
    with pytest.raises(AgentError) as caught:
        await guest.call(request)
    assert caught.value.errno == 17
    assert await guest.shell("cat /tmp/file") == "keep\n"
