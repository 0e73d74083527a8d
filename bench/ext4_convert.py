"""Conversion of layers to ext4 beside `tar -x` + `mke2fs -d` of the same layers, both as processes of their own.

`ext4_convert_ratio`: a Debian tree; `ext4_convert_100k_ratio`: 100,000 small files; `ext4_peak_mb`: the largest
resident size of our process for the latter. Neither `tar`'s files nor our
image are flushed to the disk, `mke2fs` flushes its own; what was left before is.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.harness import Result, benchmark, interleaved
from tests.ext4.tars import bulk

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = Path(os.environ.get("FIRKIN_TEST_IMAGES") or ROOT / ".build/images") / "debian"
# VmHWM is counted from the exec on, which ru_maxrss is not.
CONVERT = """
import sys
from pathlib import Path
from firkin.ext4 import write_image
with open(sys.argv[1], "rb", buffering=0) as layer:
    write_image([layer], Path(sys.argv[2]))
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def _debian(layer: Path) -> None:
    """The layer of the shared Debian image, uncompressed."""
    blobs = LAYOUT / "blobs" / "sha256"
    index = json.loads((LAYOUT / "index.json").read_bytes())
    manifest = json.loads((blobs / index["manifests"][0]["digest"].partition(":")[2]).read_bytes())
    (stored,) = manifest["layers"]
    with gzip.open(blobs / stored["digest"].partition(":")[2]) as packed, layer.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)


def _hundred_thousand(layer: Path) -> None:
    """A hundred folders of a thousand files of up to 4 KiB."""
    source = random.Random(1)
    with layer.open("wb") as output:
        for folder in range(100):
            for block in range(100):
                names = [b"data/d%03d/file-%05d.txt" % (folder, block * 10 + number) for number in range(10)]
                output.write(bulk(names, content=source.randbytes(source.randrange(4096))))
        output.write(bytes(1024))


def _ours(layer: Path, folder: Path, peaks: list[float]) -> float:
    command = [sys.executable, "-c", CONVERT, layer, folder / "image"]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    spent = time.perf_counter() - started
    peaks.append(int(done.stdout) * 1024 / 1e6)
    return spent


def _peer(layer: Path, folder: Path) -> float:
    root, image = folder / "root", folder / "image"
    root.mkdir()
    options = ["--numeric-owner", "--xattrs", "--xattrs-include=*"]
    started = time.perf_counter()
    subprocess.run(["tar", *options, "-xpf", layer, "-C", root], check=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, image, "16G"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _fresh(scratch: Path, work: Callable[[Path], float]) -> Callable[[], float]:
    def once() -> float:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        try:
            os.sync()
            return work(folder)
        finally:
            shutil.rmtree(folder)

    return once


def _said(who: str, work: Callable[[], float]) -> Callable[[], float]:
    def once() -> float:
        seconds = work()
        print(f"bench: {who}: {seconds:.1f} s", file=sys.stderr)
        return seconds

    return once


def _measure(
    make: Callable[[Path], None], rounds: int, *, warm: int = 1
) -> tuple[list[float], list[float], list[float]]:
    peaks: list[float] = []
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as name:
        scratch = Path(name)
        layer = scratch / "layer.tar"
        make(layer)
        ours = _said("ours", _fresh(scratch, lambda folder: _ours(layer, folder, peaks)))
        theirs = _said("tar and mke2fs", _fresh(scratch, lambda folder: _peer(layer, folder)))
        seconds, peer = interleaved(ours, theirs, rounds, warm=warm)
    return seconds, peer, peaks


@benchmark(rounds=5)
def ext4_convert_ratio(rounds: int) -> Result:
    """The shared Debian image."""
    seconds, peer, _ = _measure(_debian, rounds)
    return Result.of("ext4_convert_ratio", seconds, unit="s", peer=peer, target=1.0)


@benchmark(rounds=3)
def ext4_convert_100k_ratio(rounds: int) -> Iterator[Result]:
    """100,000 small files, and the memory that they take."""
    # The peer takes about a minute each: what a round before would warm is small beside that.
    seconds, peer, peaks = _measure(_hundred_thousand, rounds, warm=0)
    yield Result.of("ext4_convert_100k_ratio", seconds, unit="s", peer=peer, target=1.0)
    yield Result.of("ext4_peak_mb", peaks, unit="MB", target=150)
