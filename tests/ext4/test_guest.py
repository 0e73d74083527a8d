"""What a guest's kernel and tools see in a container's root is what `tar`, run as root, extracts from its layers."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

import firkin
from firkin.oci import Image, ImageStore
from tests.ext4.oracle import debian_layer, everything, extract
from tests.ext4.tars import Entry, entry, folder, symlink, tar
from tests.oci.builders import sha256

# Names may hold newlines: records end with NUL. A directory's size is the file system's own business.
LOOK = """
set -e
cd "$1"
find . -xdev ! -type d -printf '%P|%y %m %U %G %T@ %n %s|%l\\0'
find . -xdev -type d -printf '%P|%y %m %U %G %T@ %n|\\0'
find . -xdev '(' -type b -o -type c ')' -exec stat --printf '%n|%t:%T|\\0' '{}' +
find . -xdev -type f -exec sha256sum -z '{}' +
"""
# What the runtime mounts, and the folders that have the time at which it made the places for that.
MOUNTED = {"proc", "sys", "dev", "etc/hosts", "etc/resolv.conf", "", "etc"}


def odd() -> list[Entry]:
    """One of each thing that a layer can hold, below /srv."""
    moved = [folder("srv"), folder("srv/odd")]
    for info, content in everything():
        info.name = f"srv/odd/{info.name}"
        if info.type == tarfile.LNKTYPE:
            info.linkname = f"srv/odd/{info.linkname}"
        moved.append((info, content))
    return [*moved, entry("srv/odd/two\nlines", content=b"n"), symlink("srv/odd/link\n", "to\nlines")]


@pytest.fixture(scope="module")
def layers(debian_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Debian's layer, uncompressed, and the one of odd things."""
    scratch = tmp_path_factory.mktemp("layers")
    debian, other = scratch / "debian.tar", scratch / "odd.tar"
    with debian.open("wb") as output:
        subprocess.run(["gzip", "-dc", debian_layer(debian_layout)], stdout=output, check=True, timeout=60)
    other.write_bytes(tar(odd()))
    return debian, other


@pytest.fixture(scope="module")
def odd_debian(store: ImageStore, layers: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Image:
    """`localhost/debian-odd`: both layers, in the shared store."""
    archive = tmp_path_factory.mktemp("archive") / "debian-odd.tar"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer.read_bytes()) for layer in layers]},
    }
    manifest = [
        {"Config": "config.json", "RepoTags": ["localhost/debian-odd:latest"], "Layers": ["debian.tar", "odd.tar"]}
    ]
    with tarfile.open(archive, "w") as output:
        for layer in layers:
            output.add(layer, layer.name)
        for name, document in (("config.json", config), ("manifest.json", manifest)):
            path = archive.with_name(name)
            path.write_text(json.dumps(document))
            output.add(path, name)
    (image,) = store.load(archive)
    return image


def records(found: bytes) -> set[str]:
    """What `LOOK` wrote, without what the runtime mounted."""
    lines = {line.decode(errors="surrogateescape") for line in found.split(b"\0")}
    return {line for line in lines - {""} if name_of(line) not in MOUNTED and not name_of(line).startswith("dev/")}


def name_of(record: str) -> str:
    """The path that a record is about: before the first bar, or behind a digest and two spaces."""
    name, bar, _ = record.partition("|")
    return (name if bar else record[66:]).removeprefix("./")


@pytest.mark.vm
def test_a_guest_sees_what_tar_extracts(odd_debian: Image, layers: tuple[Path, Path], tmp_path: Path) -> None:
    """Names, kinds, modes, owners, times to the nanosecond, links, sizes, targets, device numbers and contents."""
    root = tmp_path / "root"
    root.mkdir()
    for layer in layers:
        extract(layer, root)
    here = subprocess.run(["bash", "-c", LOOK, "look", root], capture_output=True, check=True, timeout=120)
    there = firkin.run(str(odd_debian.reference), ["bash", "-c", LOOK, "look", "/"], check=True, timeout=240)
    expected, found = records(here.stdout), records(there.stdout)
    assert len(found) > 10_000
    assert sorted(found - expected) == []
    assert sorted(expected - found) == []
