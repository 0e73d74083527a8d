"""Looking into an image's root filesystem from the command line."""

from __future__ import annotations

import json
import stat
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from firkin.oci import ImageStore
    from firkin.types.platform import Platform

__all__ = ["list_files", "printable", "write_file"]

_CHUNK = 1 << 20


def printable(text: str) -> str:
    """`text` without what could move a terminal's cursor or can't be encoded: its author is the image's."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def list_files(
    store: ImageStore, image: str, platform: Platform | None, path: str, *, as_json: bool, names_only: bool
) -> None:
    """Print what is in the folder `path` of `image`, or the one file `path` is."""
    from firkin.ext4 import ImageReader

    rows = []
    with store.rootfs(store.resolve(image, platform)) as lease, ImageReader(lease.path) as reader:
        folder = stat.S_ISDIR(reader.stat(path).mode)
        names = sorted(name for name in reader.iterdir(path) if name not in (".", "..")) if folder else [path]
        for name in names:
            full = f"{path.rstrip('/')}/{name}" if folder else path
            found = reader.stat(full, follow=False)
            target = reader.readlink(full) if stat.S_ISLNK(found.mode) else None
            rows.append((name, found.mode, found.uid, found.gid, found.size, int(found.mtime_ns // 10**9), target))
    if as_json:
        keys = ("name", "mode", "uid", "gid", "size", "mtime", "target")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2))
        return
    for name, mode, uid, gid, size, _, target in rows:
        arrow = f" -> {target}" if target is not None else ""
        line = name if names_only else f"{stat.filemode(mode)} {uid:>5} {gid:>5} {size:>10} {name}{arrow}"
        click.echo(printable(line))


def write_file(store: ImageStore, image: str, platform: Platform | None, path: str, output: IO[bytes]) -> None:
    """Copy the file `path` of `image` to `output`."""
    from firkin.ext4 import ImageReader

    with store.rootfs(store.resolve(image, platform)) as lease, ImageReader(lease.path) as reader:
        size = reader.stat(path).size
        for offset in range(0, size, _CHUNK):
            output.write(reader.read(path, offset, min(_CHUNK, size - offset)))
        output.flush()
