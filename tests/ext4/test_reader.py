"""The reader: paths, contents, attributes and copying out, of own images and of those that mke2fs makes."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from firkin.errors import ImageError
from firkin.ext4 import ImageReader, write_image
from tests.ext4.tars import entry, folder, hardlink, symlink, tar

MIB = 1 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "image"
    members = [
        folder("etc", mode=0o750, mtime=50),
        entry("etc/passwd", content=b"root:x:0:0\n", mode=0o4640, uid=7, mtime=1.25, xattrs={"user.k": b"v"}),
        hardlink("etc/again", "etc/passwd"),
        symlink("link", "/etc"),
        symlink("etc/up", "../../etc/./passwd"),
        symlink("loop", "loop"),
        symlink("away", "/../../outside"),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("pipe", tarfile.FIFOTYPE),
        entry("hole", content=b"a" + bytes(300_000) + b"z"),
        entry(os.fsdecode(b"\xff\xfe"), content=b"odd"),
    ]
    write_image([io.BytesIO(tar(members, tarfile.GNU_FORMAT)), io.BytesIO(tar(members[:2]))], path, size=64 * MIB)
    return path


def test_paths(image: Path) -> None:
    with ImageReader(image) as reader:
        for path in ("/etc/passwd", "etc/passwd", "/link/passwd", "/link/../link/up", "/../etc//./passwd"):
            assert reader.read(path) == b"root:x:0:0\n"
        assert reader.readlink("/link") == "/etc"
        assert stat.S_ISLNK(reader.stat("/link", follow=False).mode)
        assert stat.S_ISDIR(reader.stat("/link").mode)
        assert sorted(reader.iterdir("/link/")) == ["again", "passwd", "up"]
        assert reader.read("/" + os.fsdecode(b"\xff\xfe")) == b"odd"


def test_attributes(image: Path) -> None:
    with ImageReader(image) as reader:
        found = reader.stat("/etc/passwd")
        assert (found.mode, found.uid, found.mtime_ns, found.nlink) == (0o104640, 7, 1_250_000_000, 1)
        assert reader.xattrs("/etc/passwd") == {"user.k": b"v"}
        assert reader.xattrs("/link", follow=True) == {}
        assert reader.stat("/null").rdev == (1, 3)
        assert not reader.needs_recovery


def test_ranges(image: Path) -> None:
    with ImageReader(image) as reader:
        assert reader.read("/hole", 300_000, 10) == b"\0z"
        assert reader.read("/hole", 0, 3) == b"a\0\0"
        assert reader.read("/hole", 300_001) == b"z"
        assert reader.read("/hole", 400_000, 10) == b""


@pytest.mark.parametrize("path", ["/none", "/etc/passwd/x", "/loop", "/loop/x", "/away", "/etc", "/pipe"])
def test_unreadable_paths(image: Path, path: str) -> None:
    with ImageReader(image) as reader, pytest.raises(ImageError):
        reader.read(path)


def test_extract_a_tree(image: Path, tmp_path: Path) -> None:
    os.umask(os.umask(0o022))
    with ImageReader(image) as reader:
        report = reader.extract("/", tmp_path)
    passwd = (tmp_path / "etc/passwd").stat()
    assert (stat.S_IMODE(passwd.st_mode), passwd.st_mtime_ns) == (0o640, 1_250_000_000)
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o750
    assert (tmp_path / "etc").stat().st_mtime == 50
    assert os.readlink(tmp_path / "away") == "/../../outside"  # noqa: PTH115
    assert (tmp_path / "hole").read_bytes() == b"a" + bytes(300_000) + b"z"
    assert (tmp_path / "hole").stat().st_blocks * 512 < 200_000
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert report.skipped == ("/null",)
    assert report.files == 10


def test_extract_keeps_hard_links(tmp_path: Path) -> None:
    image, out = tmp_path / "image", tmp_path / "out"
    out.mkdir()
    write_image([io.BytesIO(tar([entry("a/f", content=b"x"), hardlink("b/f", "a/f")]))], image, size=64 * MIB)
    with ImageReader(image) as reader:
        reader.extract("/", out)
    assert (out / "a/f").samefile(out / "b/f")


def test_extract_one_file(image: Path, tmp_path: Path) -> None:
    with ImageReader(image) as reader:
        reader.extract("/etc/passwd", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["passwd"]
        with pytest.raises(ImageError, match="File exists"):
            reader.extract("/etc/passwd", tmp_path)


def test_extract_does_not_follow_symlinks_of_the_destination(image: Path, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "etc").symlink_to(outside)
    with ImageReader(image) as reader, pytest.raises(ImageError):
        reader.extract("/", out)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["-b", "1024"], ["-O", "^64bit,^metadata_csum"], ["-I", "128"], ["-I", "512"]])
def test_images_of_mke2fs(tmp_path: Path, options: list[str]) -> None:
    source, image = tmp_path / "source", tmp_path / "image"
    (source / "d").mkdir(parents=True)
    for number in range(800):
        (source / "d" / f"file-{number:04}").write_bytes(b"%d" % number)
    (source / "big").write_bytes(os.urandom(3 * MIB))
    (source / "link").symlink_to("d/" + "x" * 80)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", *options, "-d", source, image, "64M"], check=True, timeout=60)
    with ImageReader(image) as reader:
        assert reader.read("/big") == (source / "big").read_bytes()
        assert reader.read("/d/file-0777") == b"777"
        assert len(list(reader.iterdir("/d"))) == 800
        assert reader.readlink("/link") == "d/" + "x" * 80


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise" * 1000)
    (tmp_path / "short").write_bytes(b"")
    for name in ("noise", "short", "missing"):
        with pytest.raises(ImageError):
            ImageReader(tmp_path / name)
    subprocess.run(["mke2fs", "-q", "-t", "ext2", tmp_path / "ext2", "8M"], check=True, timeout=30)
    with ImageReader(tmp_path / "ext2") as reader, pytest.raises(ImageError, match="no extents"):
        list(reader.walk())
