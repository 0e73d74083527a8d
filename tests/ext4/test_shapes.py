"""Shapes and sizes: many files, wide and deep directories, fragmented files, empty images, and what it all costs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from firkin.errors import ImageError, InvalidInputError
from firkin.ext4 import Ext4Writer, ImageReader, Limits, make_empty, write_image
from tests.ext4.snapshots import fsck, of_image
from tests.ext4.tars import bulk, entry, folder, symlink, tar, whiteout

MIB = 1 << 20
GIB = 1 << 30
HUNDRED_THOUSAND = """
import json, sys
from pathlib import Path
from firkin.ext4 import write_image
with open(sys.argv[1], "rb") as layer:
    report = write_image([layer], Path(sys.argv[2]))
status = Path("/proc/self/status").read_text()
print(json.dumps([report.inodes, int(status.partition("VmHWM:")[2].split()[0]) * 1024]))
"""


def test_hundred_thousand_files(tmp_path: Path) -> None:
    """In one process of at most 150 MB at its peak, and all of them there."""
    layer, image = tmp_path / "layer.tar", tmp_path / "image"
    names = [b"d%d/file-%d" % (number // 1000, number) for number in range(100_000)]
    layer.write_bytes(bulk(names, content=b"small"))
    command = [sys.executable, "-c", HUNDRED_THOUSAND, layer, image]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    inodes, peak = json.loads(done.stdout)
    fsck(image)
    assert inodes == 100_101
    assert peak < 150e6
    with ImageReader(image) as reader:
        assert sum(1 for _ in reader.walk()) == 100_101
        assert reader.read("/d77/file-77123") == b"small"


def test_wide_directory_of_names_of_all_lengths(tmp_path: Path) -> None:
    """A hash tree of two levels, with bytes over 127 in its names: e2fsck recomputes every hash."""
    image = tmp_path / "image"
    names = [b"%06d" % number + b"\xe4" * (number % 90) for number in range(48_000)]
    long = [b"n" * length for length in range(1, 256)]
    layer = bulk([b"wide/" + name for name in names], kind=tarfile.FIFOTYPE)
    rest = tar([entry(f"wide/{name.decode()}") for name in long])
    write_image([io.BytesIO(layer), io.BytesIO(rest)], image)
    fsck(image)
    shown = subprocess.run(["debugfs", "-R", "htree_dump /wide", image], capture_output=True, timeout=60)
    assert b"Indirect levels: 1" in shown.stdout
    with ImageReader(image) as reader:
        assert {os.fsencode(name) for name in reader.iterdir("/wide")} == {*names, *long}


def test_directories_around_the_hash_tree_threshold(tmp_path: Path) -> None:
    for count in (255, 300, 400, 508, 509, 510, 1020):
        image = tmp_path / f"image{count}"
        write_image([io.BytesIO(tar([entry(f"{number:08}") for number in range(count)]))], image, size=64 * MIB)
        fsck(image)
        with ImageReader(image) as reader:
            assert len(list(reader.iterdir("/"))) == count


def test_very_deep_directories(tmp_path: Path) -> None:
    """Two thousand levels, reached through symlinks since no path is that long; and gone with one whiteout."""
    step = "/".join(["s"] * 500)
    members = [entry(f"{step}/f")]
    for number in range(3):
        members += [symlink(f"at{number}", f"at{number - 1}/{step}" if number else step), entry(f"at{number}/{step}/f")]
    image = tmp_path / "image"
    write_image([io.BytesIO(tar(members))], image, size=256 * MIB)
    fsck(image)
    with ImageReader(image) as reader:
        assert sum(1 for _ in reader.walk()) == 1 + 4 * 501 + 3
    write_image([io.BytesIO(tar(members)), io.BytesIO(tar([whiteout("s")]))], image, size=256 * MIB)
    fsck(image)
    assert sorted(of_image(image)) == ["/", "/at0", "/at1", "/at2"]


def test_more_subdirectories_than_links(tmp_path: Path) -> None:
    image = tmp_path / "image"
    layer = bulk([b"d/%d" % number for number in range(65_010)], kind=tarfile.DIRTYPE)
    write_image([io.BytesIO(layer)], image)
    fsck(image)
    with ImageReader(image) as reader:
        assert reader.stat("/d").nlink == 1


def test_deep_extent_tree(tmp_path: Path) -> None:
    """A file of 2000 islands needs two levels of extents; removed again, its tree is freed as well."""
    islands = tmp_path / "islands"
    with islands.open("wb") as file:
        for number in range(2000):
            file.seek(number * 12_288)
            file.write(b"%04d" % number * 1024)
    layer = tmp_path / "layer.tar"
    subprocess.run(["tar", "-S", "-cf", layer, "-C", tmp_path, "islands"], check=True, timeout=60)
    image, freed = tmp_path / "image", tmp_path / "freed"
    write_image([io.BytesIO(layer.read_bytes())], image)
    fsck(image)
    shown = subprocess.run(["debugfs", "-R", "ex -n /islands", image], capture_output=True, text=True, timeout=60)
    assert " 0/ 2" in shown.stdout
    with ImageReader(image) as reader:
        assert reader.read("/islands") == islands.read_bytes()
        assert reader.stat("/islands").blocks == (2000 + 7) * 8
    report = write_image([io.BytesIO(layer.read_bytes()), io.BytesIO(tar([whiteout("islands")]))], freed)
    fsck(freed)
    assert report.blocks_used == write_image([], tmp_path / "empty").blocks_used


def test_runs_of_zeros_become_holes(tmp_path: Path) -> None:
    content = b"a" * 70_000 + bytes(500_000) + b"z"
    image = tmp_path / "image"
    write_image([io.BytesIO(tar([entry("f", content=content)]))], image)
    fsck(image)
    with ImageReader(image) as reader:
        assert reader.read("/f") == content
        assert reader.stat("/f").blocks * 512 < 250_000


def test_image_larger_than_one_extent(tmp_path: Path) -> None:
    """700 MiB in one file take six extents, more than an inode holds; over group borders, too."""

    class Endless(io.RawIOBase):
        def __init__(self, head: bytes, size: int) -> None:
            self.head, self.left = head, size

        def readinto(self, target: memoryview) -> int:  # type: ignore[override]
            take = min(len(target), len(self.head) or self.left)
            target[:take] = self.head[:take] if self.head else b"\1" * take
            if self.head:
                self.head = self.head[take:]
            else:
                self.left -= take
            return take

    info, _ = entry("big")
    info.size = 700 * MIB
    image = tmp_path / "image"
    report = write_image([Endless(info.tobuf(), info.size)], image)
    fsck(image)
    assert report.bytes_read == info.size + 512
    with ImageReader(image) as reader:
        assert reader.read("/big", 650 * MIB, 10) == b"\1" * 10


@pytest.mark.parametrize("size", [MIB // 4, 8 * MIB, 64 * MIB, 130 * MIB, 3 * GIB + 5000, 16 * GIB, 400 * GIB])
@pytest.mark.parametrize("journal", [True, False], ids=["journal", "plain"])
def test_empty_volumes(tmp_path: Path, size: int, *, journal: bool) -> None:
    """Volumes of any size are clean and cost little."""
    image = tmp_path / "volume"
    make_empty(image, size, journal=journal, label="data")
    fsck(image)
    assert of_image(image).keys() == {"/", "/lost+found"}
    assert image.stat().st_blocks * 512 < 3 * MIB


def test_volume_is_restored_from_its_backup(tmp_path: Path) -> None:
    """With superblock and descriptors gone, e2fsck finds all it needs in the last group."""
    image = tmp_path / "volume"
    report = make_empty(image, 3 * GIB)
    with image.open("r+b") as file:
        file.write(bytes(8192))
    backup = (report.size // (128 * MIB) - 1) * 32_768
    command = ["e2fsck", "-fy", "-b", str(backup), "-B", "4096", image]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 1  # errors, all corrected
    fsck(image)
    assert of_image(image).keys() == {"/", "/lost+found"}


def test_kernel_writes_to_a_volume(tmp_path: Path) -> None:
    """Mounted read-write, filled and checked again: what was left out of the groups is made up correctly."""
    image, mounted = tmp_path / "volume", tmp_path / "mounted"
    layer = tar([folder("d"), *[entry(f"d/{number:04}", content=b"x") for number in range(600)]])
    write_image([io.BytesIO(layer)], image, size=GIB, journal=True)
    mounted.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, mounted], capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"this host mounts no loop devices: {done.stderr.strip()}")
    try:
        for number in range(3000):
            (mounted / "d" / f"new-{number}").write_bytes(b"y" * number)
        (mounted / "big").write_bytes(os.urandom(MIB) * 300)
        (mounted / "d" / "0001").unlink()
    finally:
        subprocess.run(["umount", mounted], check=True, timeout=60)
    fsck(image)
    with ImageReader(image) as reader:
        assert len(list(reader.iterdir("/d"))) == 3599
        assert reader.stat("/big").size == 300 * MIB


def test_same_layers_same_bytes(tmp_path: Path) -> None:
    layers = [tar([folder("d", mtime=5), entry("d/f", content=b"f" * 9000)]), tar([whiteout("d/f"), symlink("s", "d")])]
    images = []
    for name, label in (("one", ""), ("two", ""), ("three", "other")):
        write_image([io.BytesIO(layer) for layer in layers], tmp_path / name, size=64 * MIB, label=label, timestamp=77)
        images.append((tmp_path / name).read_bytes())
    assert images[0] == images[1]
    assert images[0][0x468:0x478] != images[2][0x468:0x478]  # s_uuid


def test_reports_what_it_did(tmp_path: Path) -> None:
    layer = tar([folder("d"), entry("d/f", content=b"f" * 9000)])
    report = write_image([io.BytesIO(layer), io.BytesIO(tar([]))], tmp_path / "image", size=64 * MIB)
    assert (report.layers, report.inodes, report.size) == (2, 3, 64 * MIB)
    assert report.bytes_read == len(layer) + len(tar([]))
    assert report.bytes_written <= (tmp_path / "image").stat().st_blocks * 512


class Clock:
    """A clock that moves by a second with each look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(max_bytes=100_000), "more than 100000 bytes"),
        (Limits(max_inodes=20), "more than 20 files"),
        (Limits(max_seconds=1), "more than 1 s"),
        (Limits(max_path=10), "longer than 10 bytes"),
        (Limits(max_xattr_bytes=10), "more than 10 bytes"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, what: str) -> None:
    members = [entry(f"file{number}", content=b"x" * 3000) for number in range(50)]
    members += [entry("far/too/long", xattrs={"user.long": b"value"})]
    with Ext4Writer(tmp_path / "image", limits=limits, clock=Clock()) as writer, pytest.raises(ImageError, match=what):
        writer.add_layer(io.BytesIO(tar(members)))


def test_content_larger_than_the_image(tmp_path: Path) -> None:
    layer = tar([entry("f", content=b"x" * (4 * MIB))])
    with pytest.raises(ImageError, match="larger size"):
        write_image([io.BytesIO(layer)], tmp_path / "image", size=3 * MIB)


@pytest.mark.parametrize("size", [0, 4096, 1 << 44, 1 << 50])
def test_impossible_sizes(tmp_path: Path, size: int) -> None:
    with pytest.raises(InvalidInputError):
        make_empty(tmp_path / "image", size)
