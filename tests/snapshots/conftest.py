"""One counting Python process, saved once, for the tests of its clones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from firkin import Container, Stdio
from firkin.core.snapshots import Snapshots
from firkin.oci import Image
from firkin.types import StateDirs
from firkin.vmm.save import SaveReport

# Counts in memory, holds an open file and a half-read pipe, and answers a line on stdin with all that it knows.
PROGRAM = """
import json, os, socket, sys, threading, time, uuid
counter = 0
ticks = 0
os.makedirs("/dev/shm/t", exist_ok=True)
held = open("/var/tmp/held", "w+"); held.write("0123456789"); held.flush(); held.seek(4)
os.unlink("/var/tmp/held")
read_end, write_end = os.pipe(); os.write(write_end, b"abcdefgh"); os.read(read_end, 3)
open("/dev/shm/t/file", "w").write("in tmpfs")
def tick():
    global ticks
    while True:
        time.sleep(0.01); ticks += 1
threading.Thread(target=tick, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "count":
        counter += 1
    elif line.strip() == "tell":
        print(json.dumps({
            "counter": counter, "ticks": ticks, "urandom": os.urandom(16).hex(), "uuid": str(uuid.uuid4()),
            "hostname": socket.gethostname(), "held": held.read(3), "pipe": os.read(read_end, 2).decode(),
            "tmpfs": open("/dev/shm/t/file").read(), "time": time.time(),
        }), flush=True)
"""
COUNT = 7


@dataclass(frozen=True)
class Counting:
    """The name of the snapshot, and what its making reported."""

    name: str
    report: SaveReport


@pytest.fixture(scope="module")
def counting(debian_python_image: Image, home: object) -> Iterator[Counting]:
    """A process that has counted to `COUNT`, saved and stopped."""
    snapshots = Snapshots(StateDirs.default())
    with Container.launch(
        "debian-python", ["python3", "-c", PROGRAM], stdin=Stdio.PIPED, stdout=Stdio.PIPED, hostname=None
    ) as container:
        process = container.process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read() == b"ready\n"
        process.stdin.write(b"count\n" * COUNT + b"tell\n")
        assert process.stdout.read().startswith(b'{"counter": 7')
        report = container.snapshot(f"counting-{os.getpid()}")
        # The source goes on, its streams as they were.
        process.stdin.write(b"tell\n")
        assert process.stdout.read().startswith(b'{"counter": 7')
    yield Counting(f"counting-{os.getpid()}", report)
    snapshots.remove(f"counting-{os.getpid()}")
