"""Images made by buildah, umoci and skopeo, loaded and converted, hold what umoci unpacks from the same layers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from firkin.oci import Image, ImageStore
from firkin.types.state import StateDirs
from tests.ext4.oracle import need_root
from tests.ext4.snapshots import differences, fsck, of_folder, of_image

pytestmark = [pytest.mark.needs_tool("buildah"), pytest.mark.needs_tool("umoci"), pytest.mark.needs_tool("skopeo")]
TIME = 1_600_000_000_123_456_789


def tool(folder: Path, *arguments: str | Path) -> str:
    """Run a program with its state and temporary files below `folder`; what it said."""
    environment = {**os.environ, "TMPDIR": str(folder), "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout.strip()


def make_tree(root: Path) -> None:
    """A small tree with one of most things."""
    need_root()
    for name in ("etc", "usr/share/doc", "var/lib", "cache/a/b", "swap"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/shadow").write_bytes(b"s" * 5000)
    (root / "etc/shadow").chmod(0o4640)
    os.chown(root / "etc/shadow", 12, 70_000)
    (root / "etc/mtab").symlink_to("../proc/mounts")
    (root / "etc/far").symlink_to("x/" * 60 + "y")
    os.link(root / "etc/shadow", root / "var/lib/shadow-again")
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    os.mknod(root / "disk", 0o060640, os.makedev(259, 70_000))
    os.mkfifo(root / "fifo")
    (root / "capable").write_bytes(b"c")
    os.setxattr(root / "capable", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    (root / "n".ljust(200, "n")).write_text("long name")
    (root / "ümläut").write_text("größe")
    with (root / "holes").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    for number in range(20):
        (root / f"cache/a/b/{number}").write_bytes(os.urandom(number * 500))
    (root / "swap/file").write_text("will be a file")
    (root / "var").chmod(0o2775)
    for path in (root, *root.rglob("*")):
        os.utime(path, ns=(TIME, TIME), follow_symlinks=False)


def change_tree(root: Path) -> None:
    """Remove, replace, relink and add."""
    (root / "etc/passwd").unlink()
    shutil.rmtree(root / "cache/a")
    shutil.rmtree(root / "swap")
    (root / "swap").write_text("is a file now")
    (root / "fifo").unlink()
    (root / "fifo").mkdir(0o700)
    (root / "fifo/inside").write_text("new")
    (root / "etc/mtab").unlink()
    (root / "etc/mtab").symlink_to("/proc/self/mounts")
    os.chown(root / "usr/share", 5, 6)
    os.link(root / "capable", root / "usr/capable-too")


@pytest.fixture(scope="module")
def by_buildah(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout with two layers that buildah committed, the second with whiteouts; and `add`ed files."""
    folder = tmp_path_factory.mktemp("buildah")
    added = folder / "added"
    added.mkdir()
    (added / "file").write_text("added")
    buildah = ("buildah", "--root", folder / "root", "--runroot", folder / "run")
    empty = tool(folder, *buildah, "from", "scratch")
    make_tree(Path(tool(folder, *buildah, "mount", empty)))
    tool(folder, *buildah, "add", "--chown", "12:34", empty, added, "/opt/added")
    first = tool(folder, *buildah, "commit", "--quiet", empty)
    second = tool(folder, *buildah, "from", "--pull-never", first)
    change_tree(Path(tool(folder, *buildah, "mount", second)))
    tool(folder, *buildah, "config", "--cmd", "/capable", second)
    layout = folder / "layout"
    tool(folder, *buildah, "commit", "--quiet", second, f"oci:{layout}:latest")
    tool(folder, *buildah, "rm", "--all")
    return layout


@pytest.fixture(scope="module")
def by_umoci(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout of umoci: a repacked bundle, then a whiteout, an opaque directory and an inserted tree."""
    folder = tmp_path_factory.mktemp("umoci")
    layout = folder / "layout"
    image = f"{layout}:latest"
    tool(folder, "umoci", "init", "--layout", layout)
    tool(folder, "umoci", "new", "--image", image)
    for number, change in enumerate((make_tree, change_tree)):
        bundle = folder / f"bundle{number}"
        tool(folder, "umoci", "unpack", "--image", image, bundle)
        change(bundle / "rootfs")
        tool(folder, "umoci", "repack", "--image", image, bundle)
    make_tree(folder / "more")
    tool(folder, "umoci", "insert", "--image", image, folder / "more", "/more")
    tool(folder, "umoci", "insert", "--image", image, "--whiteout", "/more/etc/far")
    tool(folder, "umoci", "insert", "--image", image, "--whiteout", "/more/cache")
    tool(folder, "umoci", "insert", "--image", image, "--opaque", folder / "more/etc", "/var")
    return layout


def convert_and_compare(image: Path, reference: Path, folder: Path) -> Image:
    """Load `image`, convert it, and compare with `reference`, unpacked by umoci."""
    tool(folder, "umoci", "unpack", "--image", f"{reference}:latest", folder / "bundle")
    store = ImageStore(StateDirs.under(folder / "home"))
    (loaded,) = store.load(image)
    with store.rootfs(loaded) as lease:
        fsck(lease.path)
        found = of_image(lease.path)
    found.pop("/lost+found", None)
    assert differences(found, of_folder(folder / "bundle" / "rootfs")) == []
    return loaded


def test_by_buildah(by_buildah: Path, tmp_path: Path) -> None:
    assert len(convert_and_compare(by_buildah, by_buildah, tmp_path).layers) == 2


def test_by_umoci(by_umoci: Path, tmp_path: Path) -> None:
    assert len(convert_and_compare(by_umoci, by_umoci, tmp_path).layers) == 6


@pytest.mark.parametrize("maker", ["by_buildah", "by_umoci"])
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_archived_by_skopeo(request: pytest.FixtureRequest, tmp_path: Path, maker: str, form: str) -> None:
    source: Path = request.getfixturevalue(maker)
    archive = tmp_path / "archive.tar"
    tool(tmp_path, "skopeo", "copy", "--quiet", f"oci:{source}:latest", f"{form}:{archive}:localhost/copy:latest")
    loaded = convert_and_compare(archive, source, tmp_path)
    assert str(loaded.reference) == "localhost/copy:latest"


@pytest.mark.parametrize("maker", ["by_buildah", "by_umoci"])
@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_recompressed_by_skopeo(request: pytest.FixtureRequest, tmp_path: Path, maker: str, packing: str) -> None:
    """By way of uncompressed layers: those that are compressed already skopeo leaves as they are."""
    source: Path = request.getfixturevalue(maker)
    copy = ("skopeo", "copy", "--quiet")
    plain, packed = f"dir:{tmp_path / 'plain'}", tmp_path / "packed"
    tool(tmp_path, *copy, "--dest-decompress", f"oci:{source}:latest", plain)
    tool(tmp_path, *copy, "--dest-compress-format", packing, plain, f"oci:{packed}:latest")
    loaded = convert_and_compare(packed, source, tmp_path)
    assert {layer.descriptor.media_type.rpartition("+")[2] for layer in loaded.layers} == {packing}
