"""A clone's network is its own: what was connected when its source was saved is reset in it and goes on in the source;
the source's policy holds in it."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from firkin import AsyncContainer, Stdio
from firkin.core.snapshots import Snapshots
from firkin.types import StateDirs
from tests.network.world import World

pytestmark = pytest.mark.vm

# Holds a connection to an echo outside and one that listens, and tells by a line what becomes of them.
HOLDER = """
import errno, json, socket, sys
def outcome(work):
    try:
        return work()
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
def connect(address):
    with socket.create_connection((address, 7), 10) as sock:
        return talk(sock)
def talk(sock):
    sock.settimeout(20)
    sock.sendall(b"hello")
    return sock.recv(100).decode()
held = socket.create_connection(("1.2.3.4", 7), 10)
held6 = socket.create_connection(("2600:9::1", 7), 10)
for line in sys.stdin:
    said = {"held": outcome(lambda: talk(held)), "held6": outcome(lambda: talk(held6)),
            "anew": outcome(lambda: connect("1.2.3.4")), "denied": outcome(lambda: connect("1.2.3.5")),
            "mac": open("/sys/class/net/eth0/address").read().strip()}
    print(json.dumps(said), flush=True)
"""


async def ask(container: AsyncContainer) -> dict[str, Any]:
    stdin, stdout = container.process.stdin, container.process.stdout
    assert stdin is not None
    assert stdout is not None
    await stdin.write(b"\n")
    text = b""
    while not text.endswith(b"\n"):
        data = await stdout.read()
        assert data, text
        text += data
    return dict(json.loads(text))


async def test_connections_of_the_snapshot_are_reset_and_its_policy_stays(world: World) -> None:
    name = f"connected-{secrets.token_hex(4)}"
    own: dict[str, Any] = {"stdin": Stdio.PIPED, "stdout": Stdio.PIPED}
    before = {"held": "hello", "held6": "hello", "anew": "hello", "denied": "EHOSTUNREACH"}
    try:
        async with await AsyncContainer.launch(
            "localhost/debian-python",
            ["python3", "-u", "-c", HOLDER],
            allow_net=["1.2.3.4", "2600:9::1"],
            stderr=Stdio.INHERIT,
            **own,
        ) as source:
            first = await ask(source)
            assert first == before | {"mac": first["mac"]}
            await source.snapshot(name)
            async with await AsyncContainer.restore(name, **own) as clone:
                theirs = await ask(clone)
                # Nothing of it is another's: the source's connections are as they were, and none is the clone's.
                assert await ask(source) == first
                again = await ask(clone)
    finally:
        Snapshots(StateDirs.default()).remove(name)
    assert theirs == before | {"held": "ECONNRESET", "held6": "ECONNRESET", "mac": theirs["mac"]}
    assert theirs["mac"] != first["mac"]
    assert (again["held"], again["anew"], again["denied"]) == ("EPIPE", "hello", "EHOSTUNREACH")
