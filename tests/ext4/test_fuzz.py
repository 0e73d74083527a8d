"""Damaged and hostile input: what layers and images hold is used as it is, or refused with an `ImageError`."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firkin.errors import ImageError
from firkin.ext4 import ImageReader, Limits, make_empty, write_image
from tests.ext4.snapshots import fsck
from tests.ext4.tars import entry, folder, hardlink, opaque, symlink, tar, whiteout

MIB = 1 << 20
SIZE = 16 * MIB
LIMITS = Limits(max_bytes=64 * MIB, max_inodes=2000, max_seconds=20)
SETTINGS = settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
SOAK = settings(SETTINGS, max_examples=20_000)


def _sparse(form: str, version: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        with (Path(scratch) / "s").open("wb") as file:
            for number in range(30):
                file.seek(number * 50_000)
                file.write(b"data")
            file.truncate(1 << 24)
        options = [f"--sparse-version={version}"] if version else []
        command = ["tar", "-S", f"--format={form}", *options, "-cf", "-", "-C", scratch, "s"]
        return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


@pytest.fixture(scope="module")
def seeds() -> list[bytes]:
    """Layers with one of each thing in them."""
    members = [
        folder("d", mtime=1.5, xattrs={"user.x": b"y"}),
        entry("d/f", content=b"f" * 700, xattrs={"security.capability": b"\1\0\0\2" + bytes(16)}),
        entry("d/" + "n" * 200, content=b"long"),
        symlink("s", "d"),
        symlink("t", "l" * 150),
        entry("s/through", content=b"x" * 70_000),
        hardlink("h", "d/f"),
        whiteout("d/f"),
        opaque("d"),
        hardlink("h2", "d/f"),
        entry("c", tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("d/f", content=b"again", uid=3_000_000),
    ]
    sparse = [_sparse(*kind) for kind in (("gnu", ""), ("pax", "0.0"), ("pax", "0.1"), ("pax", "1.0"))]
    return [tar(members), tar(members, tarfile.GNU_FORMAT), *sparse]


def _repair(data: bytearray, at: int) -> None:
    """Give the header at `at` the checksum that it should have."""
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


def mutate(seed: bytes, changes: list[tuple[int, bytes]], cut: int) -> bytes:
    """Overwrite bytes, most of them in headers, whose checksums are repaired, and cut the end off."""
    data = bytearray(seed)
    headers = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    for place, new in changes:
        at = headers[place % len(headers)]
        offset = place // len(headers) % 1024  # in the header, or in the block behind it
        data[at + offset : at + offset + len(new)] = new
        _repair(data, at)
    return bytes(data[: len(data) - cut])


PIECES = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.sampled_from(
        [b"\xff" * 12, b"\x80" + bytes(11), b"77777777777\0", b"00000000000\0", b"-1\0", b"../", b"/", b"\0"]
    ),
    st.sampled_from([bytes([kind]) for kind in b"\x001234567gxKLSDMNVAZ"]),
)
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), PIECES), min_size=1, max_size=4)


def refused(act: Callable[[], object]) -> str:
    """The message of the `ImageError` that `act` raises, empty where it does not. Every other error is a failure."""
    try:
        act()
    except ImageError as error:
        return str(error)
    return ""


def check_layer(seeds: list[bytes], choice: int, changes: list[tuple[int, bytes]], cut: int) -> None:
    layer = mutate(seeds[choice % len(seeds)], changes, cut)
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image"
        refusal = refused(
            lambda: write_image([io.BytesIO(seeds[0]), io.BytesIO(layer)], image, size=SIZE, limits=LIMITS)
        )
        assert "\n" not in refusal
        if not refusal:
            fsck(image)


ARGUMENTS = (st.integers(0, 5), CHANGES, st.one_of(st.just(0), st.integers(0, 20_000)))


@SETTINGS
@given(*ARGUMENTS)
def test_fuzzed_layers(seeds: list[bytes], choice: int, changes: list[tuple[int, bytes]], cut: int) -> None:
    check_layer(seeds, choice, changes, cut)


@pytest.mark.soak
@SOAK
@given(*ARGUMENTS)
def test_many_fuzzed_layers(seeds: list[bytes], choice: int, changes: list[tuple[int, bytes]], cut: int) -> None:
    check_layer(seeds, choice, changes, cut)


@settings(SETTINGS, max_examples=100)
@given(st.binary(max_size=5000))
def test_noise_is_no_layer(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        refusal = refused(lambda: write_image([io.BytesIO(noise)], Path(scratch) / "image", size=SIZE))
    assert bool(refusal) == (0 < len(noise) < 512 or bool(noise[:512].strip(b"\0")))


def _pax(records: bytes) -> bytes:
    """A layer of one file with these PAX records as they are."""
    info, _ = entry("x", tarfile.XHDTYPE, records)
    return (
        info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512) + tar([entry("f", content=b"12345678")])
    )


@pytest.mark.parametrize(
    "records",
    [
        b"noise",
        b"99 path=x\n",
        b"0 path=x\n",
        b"11 pathxxxx\n",
        b"12 size=-123\n",
        b"14 uid=99999x\n",
        b"13 mtime=1e9\n",
        b"25 path=with\0a NUL inside\n",
        b"10 size=9\n" + b"21 GNU.sparse.major=1\n",
        b"22 GNU.sparse.major=1\n27 GNU.sparse.realsize=100\n",
        b"22 GNU.sparse.map=0,5\n",
        b"26 GNU.sparse.map=5,4,0,4\n22 GNU.sparse.size=9\n",
        b"28 GNU.sparse.map=0,4,900,4\n22 GNU.sparse.size=9\n",
        b"24 GNU.sparse.map=0,8,1\n22 GNU.sparse.size=9\n",
    ],
)
def test_odd_pax_records(tmp_path: Path, records: bytes) -> None:
    with pytest.raises(ImageError):
        write_image([io.BytesIO(_pax(records))], tmp_path / "image", size=SIZE)


def test_extended_headers_have_a_bound(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        info, _ = entry("x", kind)
        info.size = 1 << 33
        with pytest.raises(ImageError, match="extended tar header"):
            write_image([io.BytesIO(info.tobuf(tarfile.GNU_FORMAT))], tmp_path / "image", size=SIZE)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image with files, symlinks, xattrs, a hash tree and an extent tree."""
    path = tmp_path_factory.mktemp("fuzz") / "image"
    many = [folder("wide"), *[entry(f"wide/{number:060}", content=b"x") for number in range(130)]]
    members = [symlink("s", "wide"), symlink("t", "l" * 100), entry("x", xattrs={"user.a": b"b", "user.c": b"d" * 300})]
    content = (b"d" * 65_536 + bytes(65_536)) * 8
    write_image([io.BytesIO(tar([*many, *members, entry("islands", content=content)]))], path, size=SIZE)
    return path


def check_images(image: Path, scratch: Path, rounds: int, seed: int) -> None:
    """Damage an image's metadata over and over, and read all of it each time."""
    data = image.read_bytes()
    used = [at for at in range(0, len(data), 4096) if data[at : at + 4096].strip(b"\0x")]
    source = random.Random(seed)
    damaged = scratch / "damaged"
    damaged.write_bytes(data)
    messages = set()
    with damaged.open("r+b") as file:
        for number in range(rounds):
            changed = []
            for _ in range(source.choice([1, 3, 30])):
                at = source.choice(used) + source.choice([source.randrange(0, 4096), source.randrange(0, 256)])
                value = source.choice([source.randbytes(1), b"\xff" * 4, struct.pack("<I", source.randrange(5000))])
                os.pwrite(file.fileno(), value, at)
                changed.append((at, len(value)))
            out = scratch / f"out{number}"
            out.mkdir()
            messages.add(refused(lambda out=out: read_all(damaged, out)))
            shutil.rmtree(out)
            for at, length in changed:
                os.pwrite(file.fileno(), data[at : at + length], at)
    assert "" in messages
    assert any("damaged" in message for message in messages)
    assert not any("\n" in message for message in messages)
    assert [path.name for path in scratch.iterdir()] == ["damaged"]


def read_all(path: Path, out: Path) -> None:
    with ImageReader(path, limits=Limits(max_bytes=64 * MIB, max_inodes=20_000, max_seconds=20)) as reader:
        for name, status in reader.walk():
            reader.xattrs(name)
            if stat.S_ISLNK(status.mode):
                reader.readlink(name)
        reader.extract("/", out)


def test_fuzzed_images(image: Path, tmp_path: Path) -> None:
    """No crash, no endless loop, and nothing outside the destination."""
    check_images(image, tmp_path, 120, seed=20)


@pytest.mark.soak
def test_many_fuzzed_images(image: Path, tmp_path: Path) -> None:
    check_images(image, tmp_path, 20_000, seed=21)


def test_directory_loop(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_empty(image, SIZE)
    subprocess.run(["debugfs", "-w", "-R", "mkdir a", image], check=True, capture_output=True, timeout=30)
    subprocess.run(["debugfs", "-w", "-R", "link / a/loop", image], check=True, capture_output=True, timeout=30)
    with ImageReader(image) as reader:
        with pytest.raises(ImageError, match="inside itself"):
            list(reader.walk())
        (tmp_path / "out").mkdir()
        with pytest.raises(ImageError, match="inside itself"):
            reader.extract("/", tmp_path / "out")
