"""Images hold what `tar`, run as root, extracts from the same layers."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from firkin.ext4 import ImageReader, write_image
from tests.ext4.oracle import debian_layer, everything, extract
from tests.ext4.snapshots import differences, fsck, of_folder, of_image
from tests.ext4.tars import entry, folder, tar

GIB = 1 << 30
SIZE = 1 * GIB
ACL = bytes.fromhex("02000000 01000600ffffffff 020004000a000000 04000400ffffffff 10000600ffffffff 20000400ffffffff")


def convert_and_compare(layer: Path, tmp_path: Path, size: int = SIZE) -> Path:
    image, root = tmp_path / "image", tmp_path / "root"
    with layer.open("rb") as stream:
        write_image([stream], image, size=size)
    fsck(image)
    extract(layer, root)
    assert differences(of_image(image), of_folder(root)) == []
    return image


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_everything(tmp_path: Path, form: int) -> None:
    """Ids over 2,097,151, fractions and xattrs are in PAX headers, or (GNU) in base 256 or not at all."""
    entries = everything()
    if form == tarfile.GNU_FORMAT:
        for info, _ in entries:
            info.pax_headers, info.mtime = {}, int(info.mtime)
    entries.append(entry("big-id", uid=3_000_000_000, gid=4_000_000_000))
    layer = tmp_path / "layer.tar"
    layer.write_bytes(tar(entries, form))
    convert_and_compare(layer, tmp_path)


def test_ustar_prefixes(tmp_path: Path) -> None:
    layer = tmp_path / "layer.tar"
    deep = "/".join(["p" * 50] * 3)
    layer.write_bytes(
        tar(
            [folder("p" * 50), folder(deep[:101]), folder(deep), entry(f"{deep}/{'q' * 90}", content=b"far in")],
            tarfile.USTAR_FORMAT,
        )
    )
    convert_and_compare(layer, tmp_path)


def test_debian(tmp_path: Path, debian_layout: Path) -> None:
    """A whole Debian, in the default size, costs the host little more than its files."""
    layer = tmp_path / "debian.tar"
    with layer.open("wb") as output:
        subprocess.run(["gzip", "-dc", debian_layer(debian_layout)], stdout=output, check=True, timeout=60)
    image = convert_and_compare(layer, tmp_path, 16 * GIB)
    used = sum(path.lstat().st_blocks for path in (tmp_path / "root").rglob("*")) * 512
    status = image.stat()
    assert status.st_size == 16 * GIB
    assert status.st_blocks * 512 < used * 1.1 + (16 << 20)


SPARSE = [
    ("gnu", []),
    ("pax", ["--sparse-version=0.0"]),
    ("pax", ["--sparse-version=0.1"]),
    ("pax", ["--sparse-version=1.0"]),
]


@pytest.mark.parametrize(("form", "options"), SPARSE, ids=["gnu", "0.0", "0.1", "1.0"])
def test_sparse_formats(tmp_path: Path, form: str, options: list[str]) -> None:
    """Six gigabytes of hole with islands, unaligned and by the hundred, stay holes."""
    source = tmp_path / "source"
    source.mkdir()
    islands = [0, 5 * 4096 + 7, 1 << 20, 4 * GIB + 1, *(2 * GIB + step * 40_000 for step in range(400))]
    with (source / "six").open("wb") as file:
        for at in islands:
            file.seek(at)
            file.write(b"island at %d" % at)
        file.truncate(6 * GIB)
    (source / "after").write_bytes(b"after")
    layer = tmp_path / "layer.tar"
    create = ["tar", "-S", f"--format={form}", *options, "--numeric-owner", "-cf", layer, "-C", source, "six", "after"]
    subprocess.run(create, check=True, timeout=60)
    image = tmp_path / "image"
    with layer.open("rb") as stream:
        report = write_image([stream], image)
    fsck(image)
    assert report.bytes_written < 16 << 20
    shown = subprocess.run(
        ["debugfs", "-R", "stat /six", image], capture_output=True, text=True, check=True, timeout=30
    )
    assert f"Size: {6 * GIB}" in shown.stdout
    with ImageReader(image) as reader:
        wrong = [
            at for at in islands if reader.read("/six", at - 1 if at else 0, 30).strip(b"\0") != b"island at %d" % at
        ]
        blocks = reader.stat("/six").blocks
        assert reader.read("/after") == b"after"
    assert wrong == []
    assert blocks * 512 < 4 << 20


def test_debugfs_reads_what_was_staged(tmp_path: Path) -> None:
    image = tmp_path / "image"
    write_image([io.BytesIO(tar([entry("bin/hello", content=b"hello\n", mode=0o755)]))], image)
    shown = subprocess.run(["debugfs", "-R", "cat /bin/hello", image], capture_output=True, check=True, timeout=30)
    assert shown.stdout == b"hello\n"


def test_the_kernel_reads_it_too(tmp_path: Path) -> None:
    """Mounted by this host's kernel, where it can: hash trees, xattrs, times and all."""
    image, mounted, layer, root = (tmp_path / name for name in ("image", "mounted", "layer.tar", "root"))
    wide = [folder("wide")]
    wide += [entry(f"wide/file-{number:05}", content=b"%d" % number) for number in range(5000)]
    layer.write_bytes(tar([*everything(), *wide]))
    with_acl = tar([entry("acl", mode=0o664, xattrs={"system.posix_acl_access": ACL})])
    write_image([io.BytesIO(layer.read_bytes()), io.BytesIO(with_acl)], image)
    extract(layer, root)
    mounted.mkdir()
    done = subprocess.run(["mount", "-o", "loop,ro", image, mounted], capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"this host mounts no loop devices: {done.stderr.strip()}")
    try:
        names = [path.name for path in (mounted / "wide").iterdir()]
        found = of_folder(mounted)
        acl = os.getxattr(mounted / "acl", "system.posix_acl_access")
        missing = [f"{number:05}" for number in range(5000) if not (mounted / f"wide/file-{number:05}").exists()]
    finally:
        subprocess.run(["umount", mounted], check=True, timeout=60)
    assert differences(found, of_folder(root)) == [
        "only in one: /acl"
    ]  # tar needs text to restore access control lists
    assert acl == ACL
    assert len(set(names)) == 5000
    assert missing == []
