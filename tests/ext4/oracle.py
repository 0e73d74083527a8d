"""What `tar`, run as root, makes of a layer; and the layers that are compared so."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.ext4.tars import Entry, entry, folder, hardlink, symlink


def need_root() -> None:
    """Fail the test where it does not run as root."""
    if os.geteuid() != 0:
        pytest.fail("only root can extract owners and devices: run the tests as root", pytrace=False)


def extract(layer: Path, into: Path) -> None:
    """What `tar`, run as root, makes of a layer in the folder `into`, which may be there already."""
    need_root()
    into.mkdir(exist_ok=True)
    command = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", layer, "-C", into]
    subprocess.run(command, check=True, timeout=240)


def everything() -> list[Entry]:
    """One of each thing that a layer can hold."""
    deep = ["/".join(["deep"] * depth) for depth in range(1, 61)]
    return [
        *map(folder, deep),
        entry(deep[-1] + "/" + "m" * 120, content=b"deep and long"),
        folder("labelled", xattrs={"user.label": b"l" * 900}),
        folder("d", mode=0o1777, uid=12, gid=34, mtime=1_600_000_000.987654321, xattrs={"trusted.on": b"a folder"}),
        entry("d/empty"),
        entry("d/small", content=b"x" * 5000, mode=0o4755, uid=65536, gid=70000, mtime=-1.25),
        entry("d/large", content=os.urandom(300_001), mtime=4_000_000_000.5),
        entry("d/zeros", content=bytes(1 << 20)),
        entry("d/far", mtime=15_000_000_000),
        entry("d/mixed", content=bytes(200_000) + b"data" * 20_000 + bytes(300_000) + b"end"),
        hardlink("d/again", "d/large"),
        entry("d/small-again", content=b"first"),
        entry("d/small-again", content=b"second, which wins"),
        symlink("short", "d/small"),
        hardlink("short-again", "short"),
        symlink("edge59", "e" * 59),
        symlink("edge60", "f" * 60),
        symlink("long", "g/" * 2000 + "h", uid=5),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("disk", tarfile.BLKTYPE, devmajor=259, devminor=70_000, mode=0o660, gid=6),
        entry("fifo", tarfile.FIFOTYPE, mode=0o600),
        entry("ping", xattrs={"security.capability": bytes.fromhex("0100000200200000000000000000000000000000")}),
        entry("tagged", xattrs={"user.a": b"1", "user.bb": b"", "user.long": b"v" * 60, "trusted.x": b"\xff="}),
        entry("heavy", xattrs={"user.heavy": b"w" * 3000, "user.more": b"z" * 700}),
        entry("twin1", xattrs={"user.same": b"s" * 500}),
        entry("twin2", xattrs={"user.same": b"s" * 500}),
        entry("n" * 255, content=b"long name"),
        entry("ümläut", content="größe".encode()),
    ]


def debian_layer(layout: Path) -> Path:
    """The path of the only layer's blob."""
    index = json.loads((layout / "index.json").read_bytes())

    def blob(descriptor: dict[str, str]) -> Path:
        return layout / "blobs" / descriptor["digest"].replace(":", "/")

    manifest = json.loads(blob(index["manifests"][0]).read_bytes())
    (layer,) = manifest["layers"]
    return blob(layer)
