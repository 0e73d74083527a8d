"""Copies into and out of a container: one large file beside the bare link, and many small ones beside tar(1) there."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import Result, benchmark
from firkin.core.container import AsyncContainer
from firkin.oci.store import ImageStore
from firkin.types.state import StateDirs

_MIB = 1 << 20
_SIZE = 1024 * _MIB
_BARE = 64 * _MIB
_FILES = 10_000
# The agent's own ends of a stream, there with `firkin.test=1` (guest/vminitd/src/testing.rs).
_DISCARD_PORT, _SOURCE_PORT = 9, 19


async def _launched() -> AsyncContainer:
    ImageStore(StateDirs.default()).ensure_busybox()
    return await AsyncContainer.launch("busybox", ["sleep", "3600"], cmdline_extra="firkin.test=1", fork=False)


async def _bare_in(box: AsyncContainer) -> float:
    began = time.perf_counter()
    async with await box.vm.link.open(_DISCARD_PORT) as stream:
        for _ in range(_BARE // _MIB):
            await stream.write(bytes(_MIB))
        await stream.end()
        await stream.read()
    return _BARE / 1e6 / (time.perf_counter() - began)


async def _bare_out(box: AsyncContainer) -> float:
    began, left = time.perf_counter(), _BARE
    stream = await box.vm.link.open(_SOURCE_PORT)
    while left > 0:
        left -= len(await stream.read(_MIB))
    stream.reset()
    return _BARE / 1e6 / (time.perf_counter() - began)


def _fill(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(_SIZE // _MIB):
            file.write(os.urandom(_MIB))


@benchmark(rounds=3)
async def cp_1gib(rounds: int) -> list[Result]:
    """`cp_in_1gib_mbps`, `cp_out_1gib_mbps`: a file of 1 GiB to and from the container's disk, whole when it ends.

    Their peer is the bare link: 64 MiB between this process and the agent, which throws them away or makes them up.
    """
    figures: dict[str, list[float]] = {"in": [], "out": [], "bare in": [], "bare out": []}
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as folder:
        source, back = Path(folder, "source"), Path(folder, "back")
        _fill(source)
        async with await _launched() as box:
            for _ in range(rounds):
                figures["bare in"].append(await _bare_in(box))
                began = time.perf_counter()
                await box.put(source, "/root/big")
                figures["in"].append(_SIZE / 1e6 / (time.perf_counter() - began))
                figures["bare out"].append(await _bare_out(box))
                began = time.perf_counter()
                await box.get("/root/big", back)
                figures["out"].append(_SIZE / 1e6 / (time.perf_counter() - began))
                back.unlink()
    fast: dict[str, Any] = {"higher_is_better": True, "unit": "MB/s"}
    return [
        Result.of("cp_in_1gib_mbps", figures["in"], peer=figures["bare in"], **fast),
        Result.of("cp_out_1gib_mbps", figures["out"], peer=figures["bare out"], **fast),
    ]


@benchmark(rounds=3)
async def cp_10k_files_s(rounds: int) -> list[Result]:
    """Seconds for a folder of 10,000 files of 100 bytes into the container; its peer is `tar -x` there, fed by stdin.

    `cp_out_10k_files_s`: out of it.
    """
    ours: list[float] = []
    peer: list[float] = []
    out: list[float] = []
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as folder:
        many = Path(folder, "many")
        many.mkdir()
        for number in range(_FILES):
            (many / f"file-{number}").write_bytes(b"x" * 100)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(many, "many")
        async with await _launched() as box:
            for number in range(rounds):
                began = time.perf_counter()
                await box.put(many, f"/root/put{number}")
                ours.append(time.perf_counter() - began)
                began = time.perf_counter()
                script = f"mkdir /root/tar{number}; tar -x -C /root/tar{number}"
                await box.run(["sh", "-c", script], input=archive.getvalue(), check=True)
                peer.append(time.perf_counter() - began)
                began = time.perf_counter()
                await box.get(f"/root/put{number}", Path(folder, f"back{number}"))
                out.append(time.perf_counter() - began)
    return [
        Result.of("cp_10k_files_s", ours, unit="s", peer=peer),
        Result.of("cp_out_10k_files_s", out, unit="s"),
    ]
