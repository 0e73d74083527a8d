"""Many files and huge ones, compared in full with what `tar`, run as root, extracts from the same layer."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin.ext4 import write_image
from tests.ext4.oracle import extract
from tests.ext4.snapshots import differences, fsck, of_folder, of_image
from tests.ext4.tars import entry, folder

GIB = 1 << 30
CHUNK = 1 << 20
BLOCK = 4096
# `debugfs -R "extents"`: level, entries, first and last block in the file, first and last on the disk, length
EXTENT = re.compile(r"^ *(\d+)/ *(\d+) +\d+/ *\d+ +(\d+) - +(\d+) +(\d+) - +(\d+) +\d+", re.MULTILINE)


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_many_small_files(tmp_path: Path, count: int) -> None:
    """A thousand a folder, with owners, modes, times and contents of their own."""
    layer, image, root = tmp_path / "layer.tar", tmp_path / "image", tmp_path / "root"
    source = random.Random(count)
    with tarfile.open(layer, "w") as output:
        for number in range(count):
            name = f"files/d{number // 1000:03}"
            if number % 1000 == 0:
                output.addfile(folder(name, uid=number, mtime=1_500_000_000 + number)[0])
            content = source.randbytes(source.randrange(3000))
            fields = {"uid": number, "gid": number // 7, "mode": 0o400 + number % 0o400, "mtime": number * 10_007 + 0.5}
            info, _ = entry(f"{name}/file-{number:06}.txt", content=content, **fields)
            output.addfile(info, io.BytesIO(content))
        output.addfile(folder("files")[0])
    with layer.open("rb") as stream:
        report = write_image([stream], image)
    fsck(image)
    extract(layer, root)
    found = of_image(image)
    assert differences(found, of_folder(root)) == []
    assert report.inodes == len(found) == count + count // 1000 + 2


def data_of(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file of the host has data, and up to where."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole is left
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def extents_of(image: Path, name: str) -> list[tuple[int, int, int]]:
    """Where a file of the image has data, up to where, and where in the image, as debugfs reads it."""
    command = ["debugfs", "-R", f"extents -l {name}", image]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    numbers = [tuple(map(int, match.groups())) for match in EXTENT.finditer(shown)]
    return [
        (first * BLOCK, (last + 1) * BLOCK, place * BLOCK)
        for level, levels, first, last, place, _ in numbers
        if level == levels
    ]


def test_a_sparse_file_byte_for_byte(tmp_path: Path) -> None:
    """Six gigabytes, islands of all sizes and places: its bytes on the disk, found by debugfs, and its holes."""
    rough, layer, image, root = (tmp_path / name for name in ("six", "layer.tar", "image", "root"))
    source = random.Random(6)
    with rough.open("wb") as file:
        for _ in range(300):
            file.seek(source.randrange(6 * GIB - CHUNK))
            file.write(source.randbytes(source.choice([1, 511, 4096, 5000, 70_000])))
        file.seek(3 * GIB)
        file.write(source.randbytes(20 * CHUNK))
        file.truncate(6 * GIB)
    subprocess.run(["tar", "-S", "-cf", layer, "-C", tmp_path, "six"], check=True, timeout=120)
    with layer.open("rb") as stream:
        write_image([stream], image)
    fsck(image)
    extract(layer, root)
    extents = extents_of(image, "/six")
    extracted, disk = os.open(root / "six", os.O_RDONLY), os.open(image, os.O_RDONLY)
    try:
        regions = list(data_of(extracted, 6 * GIB))
        wrong = []
        for start, end, place in extents:
            for at in range(start, end, CHUNK):
                length = min(CHUNK, end - at)
                if os.pread(extracted, length, at) != os.pread(disk, length, place + at - start):
                    wrong.append(at)
        outside = [
            at
            for (_, start), (end, _) in zip([(0, 0), *spans(extents)], [*spans(extents), (6 * GIB, 0)], strict=True)
            for at in nonzero(extracted, regions, start, end)
        ]
    finally:
        os.close(extracted)
        os.close(disk)
    assert len(extents) > 250
    assert wrong == []
    assert outside == []
    assert sum(end - start for start, end, _ in extents) <= sum(end - start for start, end in regions)


def spans(extents: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    return [(start, end) for start, end, _ in extents]


def nonzero(file: int, regions: list[tuple[int, int]], start: int, end: int) -> Iterator[int]:
    """Where between `start` and `end` the file's regions of data hold more than zeros."""
    for first, last in regions:
        for at in range(max(first, start), min(last, end), CHUNK):
            if any(os.pread(file, min(CHUNK, min(last, end) - at), at)):
                yield at
