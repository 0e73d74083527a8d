"""One store, many processes and threads: work is done once, what is in use stays, what a dead process held goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from firkin.errors import FirkinTimeoutError, StateError
from firkin.oci import ImageStore
from firkin.oci.lease import Lease
from firkin.oci.rootfs_cache import RootfsLease
from firkin.types.digest import Digest
from firkin.types.state import StateDirs
from tests.oci.builders import Concatenated, Layout

ROOT = Path(__file__).resolve().parents[2]

HOLDER = """
import sys
from pathlib import Path
from firkin.oci import ImageStore
from firkin.types.state import StateDirs
store = ImageStore(StateDirs.under(Path(sys.argv[1])))
held = store.rootfs(store.resolve("a:1"))
print("held", flush=True)
sys.stdin.read()
"""


def loaded(store: ImageStore, folder: Path, name: str = "localhost/a:1", text: bytes = b"a") -> None:
    layout = Layout()
    layout.name(name, layout.image({"file": text}))
    store.load(layout.write(folder))


def test_many_convert_one(dirs: StateDirs, tmp_path: Path, writer: Concatenated) -> None:
    loaded(ImageStore(dirs), tmp_path / "l")
    first_layer, others = threading.Event(), threading.Barrier(4)

    def slow(layers: Iterable[Any], destination: Path, *, size: int) -> None:
        first_layer.set()
        others.wait(10)
        writer(layers, destination, size=size)

    def lease(number: int) -> RootfsLease:
        store = ImageStore(dirs, write_image=slow)
        if number:
            first_layer.wait(10)
            others.wait(10)
        return store.rootfs(store.resolve("a:1"))

    with ThreadPoolExecutor(4) as pool:
        leases = list(pool.map(lease, range(4)))
    assert writer.calls == 1
    assert len({lease.path for lease in leases}) == 1
    for held in leases:
        held.release()


def test_a_wait_for_another_converter_has_a_limit(dirs: StateDirs, tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def stuck(layers: Iterable[Any], destination: Path, *, size: int) -> None:
        started.set()
        go_on.wait(30)
        destination.write_bytes(b"")

    slow = ImageStore(dirs, write_image=stuck)
    loaded(slow, tmp_path / "l")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow.rootfs, slow.resolve("a:1"))
        started.wait(10)
        other = ImageStore(dirs)
        with pytest.raises(FirkinTimeoutError, match="still in use"):
            other.rootfs(other.resolve("a:1"), timeout=0)
        go_on.set()
        first.result(10).release()


def test_another_process_keeps_its_image_until_it_is_killed(store: ImageStore, dirs: StateDirs, tmp_path: Path) -> None:
    loaded(store, tmp_path / "l")
    store.rootfs(store.resolve("a:1")).release()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(dirs.data.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StateError, match="in use"):
            store.remove("a:1")
        assert store.prune(everything=True).images == ()
        assert store.rootfs_cache.shrink(0) == 0
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    assert store.prune(everything=True).images == ("localhost/a:1",)
    assert list(store.rootfs_cache) == []


def test_a_lease_keeps_blobs_and_a_dead_owners_lease_does_not(store: ImageStore) -> None:
    content = store.content
    with Lease(content.root) as lease:
        lease.hold(Digest.of(b"kept"))
        content.put(b"kept")
        content.put(b"garbage")
        store.prune()
        assert [*content] == [Digest.of(b"kept")]
    (content.root / "leases" / "dead").write_text(f"{Digest.of(b'kept')}\n")
    assert store.prune().blobs == 1
    assert not (content.root / "leases" / "dead").exists()


def test_two_writers_of_one_blob_do_the_work_once(store: ImageStore) -> None:
    content, digest = store.content, Digest.of(b"x" * 1000)
    writer = content.ingest(digest, 1000)
    assert writer is not None
    with ThreadPoolExecutor(1) as pool, writer:
        waiting = pool.submit(content.ingest, digest, 1000)
        writer.write(b"x" * 1000)
        writer.commit()
        assert waiting.result(10) is None
    assert content.read(digest, 1000) == b"x" * 1000


def test_a_partial_blob_is_taken_up_where_it_was_left(store: ImageStore) -> None:
    content, digest = store.content, Digest.of(b"0123456789")
    first = content.ingest(digest, 10)
    assert first is not None
    with first:
        first.write(b"01234")
    second = content.ingest(digest, 10)
    assert second is not None
    with second:
        assert second.resume() == 5
        second.write(b"56789")
        assert second.commit() == digest


def test_the_cache_drops_what_was_unused_longest(store: ImageStore, tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        loaded(store, tmp_path / str(number), f"localhost/n{number}:1", bytes(number * 100_000))
        with store.rootfs(store.resolve(f"n{number}:1")) as lease:
            paths.append(lease.path)
        os.utime(paths[-1], (1000 + number, 1000 + number))
    with store.rootfs(store.resolve("n0:1")):
        pass
    store.rootfs_cache.shrink(paths[0].stat().st_blocks * 512)
    assert [path.exists() for path in paths] == [True, False, False]
