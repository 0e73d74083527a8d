"""Scenario and more: Unix sockets between host and container, both ways, in a real VM."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from firkin.core.container import AsyncContainer
from firkin.core.socket_relay import SocketRelay
from firkin.errors import InvalidInputError, NotFoundError
from firkin.oci import Image
from firkin.types import GuestPath, StateDirs, Stdio
from firkin.vmm.folder import reclaim

pytestmark = pytest.mark.vm
async_test = pytest.mark.asyncio(loop_scope="module")
MIB = 1 << 20
FIRKIN = (sys.executable, "-c", "from firkin.cli import main; main()")

# A server that sends everything back in capitals, then what it counted: only after the other side's half-close.
SERVER = """
import os, socketserver, threading
class Shout(socketserver.BaseRequestHandler):
    def handle(self):
        count = 0
        while data := self.request.recv(65536):
            count += len(data)
            self.request.sendall(data.upper())
        self.request.sendall(b"<%d>" % count)
class Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 512
    daemon_threads = True
server = Server("/run/out.sock", Shout)
print("ready", flush=True)
server.serve_forever()
"""
CLIENTS = """
import socket, sys
count, size = int(sys.argv[2]), int(sys.argv[3])
clients = []
for n in range(count):
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[1])
    clients.append(client)
import threading
def talk(n, client):
    def send():
        client.sendall(b"%d," % n * size)
        client.shutdown(socket.SHUT_WR)
    sender = threading.Thread(target=send)
    sender.start()
    got = b""
    while data := client.recv(65536):
        got += data
    sender.join()
    good[n] = got == (b"%d," % n * size).upper() + b"<%d>" % (len(b"%d," % n) * size)
good = {}
threads = [threading.Thread(target=talk, args=each) for each in enumerate(clients)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(good.values()))
"""


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    count = 0
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            count += len(data)
            writer.write(data.upper())
            await writer.drain()
        writer.write(b"<%d>" % count)
        await writer.drain()
    writer.close()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is longer than a socket's may be."""
    folder = tmp_path_factory.mktemp("sockets") / ("long" * 30)
    folder.mkdir()
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(debian_python_image: Image, there: Path) -> AsyncIterator[AsyncContainer]:
    async with await serving(there / "in.sock"):
        relays = [
            SocketRelay(there / "in.sock", GuestPath("/run/deep/in.sock"), mode=0o666),
            SocketRelay(there / "none.sock", GuestPath("/run/none.sock")),
            SocketRelay(there / "out.sock", GuestPath("/run/out.sock"), into_guest=False, mode=0o640),
        ]
        command = ["python3", "-c", "import os; print(os.path.exists('/run/deep/in.sock'));" + SERVER]
        async with await AsyncContainer.launch("debian-python", command, sockets=relays, stdout=Stdio.PIPED) as box:
            assert box.process.stdout is not None
            # It is there before the first process begins.
            assert await box.process.stdout.readexactly(11) == b"True\nready\n"
            yield box
    assert not (there / "out.sock").exists()


async def serving(path: Path) -> asyncio.Server:
    folder = os.open(path.parent, os.O_PATH)
    try:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    return await asyncio.start_unix_server(shout, sock=sock, backlog=512)


async def clients(box: AsyncContainer, path: str, count: int, size: int, **options: object) -> str:
    done = await box.run(["python3", "-c", CLIENTS, path, str(count), str(size)], text=True, timeout=120, **options)
    return str(done.stdout or done.stderr)


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    file = os.open(path, os.O_PATH)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


async def ask(path: Path, text: bytes) -> bytes:
    reader, writer = await connect(path)

    async def send() -> None:
        writer.write(text)
        await writer.drain()
        writer.write_eof()

    _, answer = await asyncio.gather(send(), reader.read())
    writer.close()
    return answer


@pytest.mark.scenario("unix socket into guest")
@async_test
async def test_into_the_guest_many_at_once(box: AsyncContainer) -> None:
    assert await clients(box, "/run/deep/in.sock", 200, 1000) == "200\n"


@async_test
async def test_any_user_may_connect_as_the_mode_says(box: AsyncContainer) -> None:
    assert await clients(box, "/run/deep/in.sock", 1, 10, user="1234") == "1\n"
    assert "PermissionError" in await clients(box, "/run/none.sock", 1, 10, user="1234")
    found = await box.stat("/run/deep/in.sock")
    assert (stat.S_ISSOCK(found.mode), stat.S_IMODE(found.mode)) == (True, 0o666)


@async_test
async def test_big_transfers_into_the_guest(box: AsyncContainer) -> None:
    assert await clients(box, "/run/deep/in.sock", 2, 2 * MIB) == "2\n"


@async_test
async def test_a_host_that_does_not_listen_ends_the_connection(box: AsyncContainer) -> None:
    script = "import socket; c = socket.socket(socket.AF_UNIX); c.connect('/run/none.sock'); print(c.recv(1))"
    done = await box.run(["python3", "-c", script], text=True, timeout=60)
    assert done.stdout == "b''\n" or "ConnectionResetError" in str(done.stderr)


@async_test
async def test_out_of_the_guest(box: AsyncContainer, there: Path) -> None:
    assert stat.S_IMODE((there / "out.sock").stat().st_mode) == 0o640
    assert await ask(there / "out.sock", b"hello") == b"HELLO<5>"
    text = os.urandom(3 * MIB)
    answer = await ask(there / "out.sock", text)
    assert hashlib.sha256(answer).digest() == hashlib.sha256(text.upper() + b"<%d>" % len(text)).digest()


@async_test
async def test_out_of_the_guest_many_at_once(box: AsyncContainer, there: Path) -> None:
    texts = [b"%d." % number * 500 for number in range(150)]
    answers = await asyncio.gather(*(ask(there / "out.sock", text) for text in texts))
    assert answers == [text + b"<%d>" % len(text) for text in texts]


@async_test
async def test_begun_and_ended_at_run_time(box: AsyncContainer, there: Path) -> None:
    out = SocketRelay(there / "late.sock", GuestPath("/run/out.sock"), into_guest=False)
    into = SocketRelay(there / "in.sock", GuestPath("/tmp/late.sock"))
    for relay in (out, into):
        await box.relay_socket(relay)
    with pytest.raises(InvalidInputError, match="late"):
        await box.relay_socket(out)
    assert await ask(there / "late.sock", b"x") == b"X<1>"
    assert await clients(box, "/tmp/late.sock", 1, 1) == "1\n"
    for relay in (out, into):
        await box.stop_socket(relay)
    assert not (there / "late.sock").exists()
    assert "FileNotFoundError" in await clients(box, "/tmp/late.sock", 1, 1)
    with pytest.raises(NotFoundError):
        await box.stop_socket(out)


@async_test
async def test_a_guest_that_does_not_listen_ends_the_connection(box: AsyncContainer, there: Path) -> None:
    relay = SocketRelay(there / "deaf.sock", GuestPath("/run/nobody.sock"), into_guest=False)
    await box.relay_socket(relay)
    reader, writer = await connect(there / "deaf.sock")
    assert await reader.read() == b""
    writer.close()
    await box.stop_socket(relay)


@async_test
async def test_what_is_in_the_way_is_an_error_before_the_boot(there: Path, debian_python_image: Image) -> None:
    (there / "taken").write_text("mine")
    relay = SocketRelay(there / "taken", GuestPath("/x"), into_guest=False)
    with pytest.raises(InvalidInputError, match="exists already"):
        await AsyncContainer.launch("debian-python", ["true"], sockets=[relay])
    assert (there / "taken").read_text() == "mine"
    with pytest.raises(InvalidInputError, match="too long"):
        await AsyncContainer.launch(
            "debian-python", ["true"], sockets=[SocketRelay(there / ("n" * 100), GuestPath("/x"), into_guest=False)]
        )


@pytest.mark.parametrize("point", ["socket.noted", "socket.bound", "socket.relayed", ""])
def test_killed(point: str, home: Path, tmp_path: Path, busybox_image: Image) -> None:
    """The published path of a killed owner goes with its folder, at the next start; no other file does."""
    path = tmp_path / "out.sock"
    command = [*FIRKIN, "run", "--publish-socket", f"/x:{path}", "busybox", "sh", "-c", "echo ready; sleep 600"]
    environ = {**os.environ, "FIRKIN_FAULT": f"{point}=kill" if point else ""}
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ)
    assert owner.stdout is not None
    if not point:
        assert owner.stdout.readline() == b"ready\n"
        assert path.is_socket()
        owner.kill()
    owner.communicate(timeout=120)
    assert owner.returncode == -signal.SIGKILL
    assert path.exists() == (point != "socket.noted")
    reclaim(StateDirs.under(home))
    assert list(tmp_path.iterdir()) == []
