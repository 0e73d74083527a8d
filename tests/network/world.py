"""A host with a world around it, in network namespaces of the test's own.

The test's thread enters the host's namespace: whatever it starts from there sees a default route to "outside", a
service on its loopback, and a bridge of other containers.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["HOST4", "HOST6", "World", "world"]

CLONE_NEWNET = 0x40000000
HOST4, HOST6 = "93.184.216.2", "2600:5::2"
_libc = ctypes.CDLL(None, use_errno=True)


class World:
    """`ask` commands the servers outside."""

    def __init__(self, outside: subprocess.Popen[str]) -> None:
        self._outside = outside

    def _command(self, **command: object) -> list[str]:
        assert self._outside.stdin is not None
        assert self._outside.stdout is not None
        self._outside.stdin.write(json.dumps(command) + "\n")
        self._outside.stdin.flush()
        names: list[str] = json.loads(self._outside.stdout.readline())
        return names

    def names(self, **zone: list[tuple[str, str, int, str]]) -> None:
        """Replace the zone: by name with `_` for `.`, records of owner, type, time to live, value."""
        self._command(zone={name.replace("_", "."): records for name, records in zone.items()})

    def seen(self) -> list[str]:
        """Names asked for since the last call."""
        return self._command(seen=None)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def world() -> Iterator[World]:
    """Enter the host's namespace with this thread; leave and end everything afterwards."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    outside = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-I", str(Path(__file__).with_name("outside.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert outside.stdout is not None
        assert outside.stdout.readline() == "ready\n"
        _connect(outside.pid)
        with _services():
            yield World(outside)
    finally:
        outside.kill()
        outside.communicate()
        if _libc.setns(before, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(before)


def _connect(pid: int) -> None:
    there = ("nsenter", "--net", "--target", str(pid), "ip")
    _ip("link", "set", "lo", "up")
    _ip("link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", str(pid))
    _ip("link", "add", "br1", "type", "bridge")
    _ip("link", "add", "port1", "master", "br1", "type", "veth", "peer", "name", "other0", "netns", str(pid))
    for address, device in ((f"{HOST4}/24", "up0"), ("10.88.0.1/16", "br1"), ("45.45.45.1/24", "br1")):
        _ip("addr", "add", address, "dev", device)
    _ip("addr", "add", f"{HOST6}/64", "dev", "up0", "nodad")
    _ip("addr", "add", "2600:77::1/64", "dev", "br1", "nodad")
    for device in ("up0", "br1", "port1"):
        _ip("link", "set", device, "up")
    for words in (
        "addr add 93.184.216.1/24 dev down0",
        "addr add 2600:5::1/64 dev down0 nodad",
        "addr add 10.88.0.5/16 dev other0",
        "addr add 45.45.45.5/24 dev other0",
        "addr add 2600:77::5/64 dev other0 nodad",
        "link set down0 up",
        "link set other0 up",
    ):
        subprocess.run([*there, *words.split()], check=True)
    _ip("route", "add", "default", "via", "93.184.216.1")
    _ip("-6", "route", "add", "default", "via", "2600:5::1")


@contextmanager
def _services() -> Iterator[None]:
    """HTTP of the host itself, on every address of it."""
    listening = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)

    def serve() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            with sock, suppress(OSError):
                sock.settimeout(5)
                # What is unread at the close makes it a reset, which may overtake the answer.
                sock.recv(65536)
                sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nthe host\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        listening.close()
