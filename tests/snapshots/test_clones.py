"""Clones of a saved container: they go on from one instant, and differ in all that must differ."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from firkin import AsyncContainer, Stdio
from firkin.core.snapshots import Snapshots
from firkin.oci import Image
from tests.snapshots.conftest import COUNT, Counting

pytestmark = pytest.mark.vm


async def ask(container: AsyncContainer, *lines: str) -> dict[str, Any]:
    """What the counting process answers to the last of `lines`."""
    process = container.process
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.write("".join(f"{line}\n" for line in lines).encode())
    text = b""
    while not text.endswith(b"}\n"):
        data = await process.stdout.read()
        assert data, text
        text += data
    return dict(json.loads(text))


async def clone(snapshot: str, **options: Any) -> AsyncContainer:
    return await AsyncContainer.restore(snapshot, stdin=Stdio.PIPED, stdout=Stdio.PIPED, **options)


@pytest.mark.timeout(300)
async def test_ten_clones_of_a_counting_process(counting: Counting) -> None:
    clones: list[AsyncContainer]
    async with AsyncExitStack() as stack:
        clones = [await stack.enter_async_context(await clone(counting.name)) for _ in range(10)]
        first = [await ask(one, "tell") for one in clones]
        now = time.time()
        # The same count, the open file and the half-read pipe where they were, tmpfs too; the clock is of now.
        assert {told["counter"] for told in first} == {COUNT}
        assert {told["held"] for told in first} == {"789"}
        assert {told["pipe"] for told in first} == {"fg"}
        assert {told["tmpfs"] for told in first} == {"in tmpfs"}
        assert all(abs(told["time"] - now) < 30 for told in first)
        for what in ("urandom", "uuid", "hostname"):
            assert len({told[what] for told in first}) == 10, what
        assert [told["hostname"] for told in first] == [str(one.spec.hostname) for one in clones]
        # They diverge, and their timers go on.
        second = [await ask(one, *["count"] * index, "tell") for index, one in enumerate(clones)]
        assert [told["counter"] for told in second] == [COUNT + index for index in range(10)]
        assert all(after["ticks"] > before["ticks"] for before, after in zip(first, second, strict=True))


async def test_a_clone_is_a_container_as_any_other(counting: Counting) -> None:
    async with await clone(counting.name, name="again", hostname="another") as container:
        done = await container.run(["sh", "-c", "hostname; echo $HOSTNAME; cat /etc/hosts"], text=True)
        lines = str(done.stdout).split("\n")
        assert lines[:2] == ["another", "another"]
        assert any(line.split() == ["127.0.1.1", "another"] for line in lines[2:])
        assert (await container.stats()).id == "again"
        assert container.describe()["image"].endswith("debian-python:latest")
        await container.update(pids_limit=50)
        # A clone of the clone, with what it did since.
        await ask(container, "count", "tell")
        (further,) = await container.fork()
        async with further:
            assert further.epoch == container.epoch + 1
            assert str((await further.run(["hostname"], text=True)).stdout).strip() == further.id
        assert (await ask(container, "tell"))["counter"] == COUNT + 1
        status = await container.stop(grace=0.1)
        assert status.signal == 9


async def test_the_report_says_what_became_of_each_disk(counting: Counting) -> None:
    methods = {disk.file: disk.method for disk in counting.report.disks}
    assert methods["disk0.raw"] in ("link", "clone", "copy")
    assert methods["disk0-0.qcow2"] in ("clone", "copy")
    assert counting.report.ram_bytes > 0
    assert 0 < counting.report.paused < counting.report.seconds


WRITER = """
import sqlite3, sys
db = sqlite3.connect("/var/tmp/db"); db.execute("PRAGMA journal_mode=%s" % sys.argv[1])
db.execute("CREATE TABLE t (n INTEGER, filler BLOB)"); db.commit()
n = 0
while True:
    db.execute("INSERT INTO t VALUES (?, randomblob(2000))", (n,)); db.commit(); n += 1
    if n == 20: print("writing", flush=True)
"""
CHECK = """
import sqlite3
db = sqlite3.connect("/var/tmp/db", timeout=30)
rows = db.execute("SELECT count(*), max(n) + 1 FROM t").fetchone()
print(db.execute("PRAGMA integrity_check").fetchone()[0], rows[0] == rows[1], rows[0])
"""


@pytest.mark.parametrize("mode", ["DELETE", pytest.param("WAL", marks=pytest.mark.soak)])
@pytest.mark.timeout(300)
async def test_sqlite_under_write_load_is_consistent_in_every_clone(debian_python_image: Image, mode: str) -> None:
    async with await AsyncContainer.launch(
        "debian-python", ["python3", "-c", WRITER, mode], stdout=Stdio.PIPED
    ) as container:
        assert container.process.stdout is not None
        assert await container.process.stdout.read() == b"writing\n"
        clones = await container.fork(3)
        try:
            for one in clones:
                counts = []
                for _ in range(2):
                    words = str((await one.run(["python3", "-c", CHECK], text=True, check=True)).stdout).split()
                    assert words[:2] == ["ok", "True"]
                    counts.append(int(words[2]))
                # The writer goes on in the clone.
                assert counts[1] > counts[0] >= 20
        finally:
            await asyncio.gather(*(one.aclose() for one in clones))


async def test_what_was_sent_before_is_read_after_and_stdin_is_a_new_one(busybox_image: Image) -> None:
    name = f"echoing-{os.getpid()}"
    async with await AsyncContainer.launch(
        "busybox", ["sh", "-c", "while read -r line; do echo got $line; done"], stdin=Stdio.PIPED, stdout=Stdio.PIPED
    ) as source:
        assert source.process.stdin is not None
        assert source.process.stdout is not None
        await source.process.stdin.write(b"a\n")
        assert await source.process.stdout.read() == b"got a\n"
        await source.snapshot(name, stop=True)
        # The old streams end cleanly: nothing more comes, and nothing fails.
        assert await source.process.stdout.read() == b""
    try:
        async with await clone(name) as container:
            assert container.process.stdin is not None
            assert container.process.stdout is not None
            await container.process.stdin.write(b"b\n")
            assert await container.process.stdout.read() == b"got b\n"
            await container.process.stdin.end()
            assert (await container.wait()).code == 0
    finally:
        Snapshots(source.dirs).remove(name)


async def _many(counting: Counting, count: int) -> None:
    at_once = asyncio.Semaphore(4)

    async def one() -> AsyncContainer:
        async with at_once:
            return await clone(counting.name)

    clones = await asyncio.gather(*(one() for _ in range(count)))
    try:
        answers = [await ask(each, "tell") for each in clones]
        assert {told["counter"] for told in answers} == {COUNT}
        for what in ("urandom", "uuid", "hostname"):
            assert len({told[what] for told in answers}) == count, what
        # They all live at once.
        assert all(each.vm.running for each in clones)
    finally:
        await asyncio.gather(*(each.aclose() for each in clones))


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_fifty_clones_alive_and_answering(counting: Counting) -> None:
    await _many(counting, 50)
