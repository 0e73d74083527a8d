"""What is in a tree, in a form that compares: of a directory of the host, and of an image."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from firkin.ext4 import ImageReader

CHUNK = 1 << 20


class File(NamedTuple):
    """One path. `names` are all paths of the same file; `links` of a directory is two and its subdirectories."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    rdev: tuple[int, int]
    links: int
    names: tuple[str, ...]
    xattrs: tuple[tuple[str, bytes], ...]
    content: str


def fsck(image: Path) -> None:
    """`e2fsck -fn` finds nothing and says nothing beside its five passes and the summary."""
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, timeout=240)
    said = [line for line in done.stdout.splitlines() if line and not line.startswith("Pass ")]
    assert done.returncode == 0, done.stdout
    assert len(said) == 1, done.stdout
    assert " files (" in said[0], done.stdout


def of_image(path: Path) -> dict[str, File]:
    """Every path of an image, the root as `/`."""
    with ImageReader(path) as reader:
        found = {}
        inodes = {}
        for name, status in reader.walk():
            content = ""
            if stat.S_ISREG(status.mode):
                content = _digest(status.size, lambda at, length, name=name: reader.read(name, at, length))
            elif stat.S_ISLNK(status.mode):
                content = reader.readlink(name)
            size = 0 if stat.S_ISDIR(status.mode) else status.size
            xattrs = tuple(sorted(reader.xattrs(name).items()))
            inodes[name] = status.inode
            found[name] = File(
                *(
                    status.mode,
                    status.uid,
                    status.gid,
                    status.mtime_ns,
                    size,
                    status.rdev,
                    status.nlink,
                    (),
                    xattrs,
                    content,
                )
            )
        return _with_names(found, inodes)


def of_folder(root: Path) -> dict[str, File]:
    """Every path below a directory of the host, itself as `/`."""
    found = {}
    inodes = {}
    pending = [""]
    while pending:
        name = pending.pop()
        path = f"{root}{name}"
        status = os.lstat(path)
        content = ""
        subdirectories = 0
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(path) as entries:
                children = list(entries)
            pending += [f"{name}/{child.name}" for child in children]
            subdirectories = sum(child.is_dir(follow_symlinks=False) for child in children)
        elif stat.S_ISREG(status.st_mode):
            with Path(path).open("rb") as file:
                content = _digest(status.st_size, lambda at, length, file=file: _read_at(file, at, length))
        elif stat.S_ISLNK(status.st_mode):
            content = str(Path(path).readlink())
        is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        rdev = (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0)
        names = os.listxattr(path, follow_symlinks=False)
        xattrs = tuple(sorted((key, os.getxattr(path, key, follow_symlinks=False)) for key in names))
        is_folder = stat.S_ISDIR(status.st_mode)
        inodes[name or "/"] = status.st_ino
        found[name or "/"] = File(
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            0 if is_folder else status.st_size,
            rdev,
            subdirectories + 2 if is_folder else status.st_nlink,  # not every host file system counts directories so
            (),
            xattrs,
            content,
        )
    return _with_names(found, inodes)


def differences(image: dict[str, File], folder: dict[str, File]) -> list[str]:
    """Where the two are not equal, the root's own attributes excepted: a tar need not describe it."""
    lines = [f"only in one: {name}" for name in sorted(image.keys() ^ folder.keys())]
    for name in sorted(image.keys() & folder.keys() - {"/"}):
        if image[name] != folder[name]:
            lines.append(f"{name}: {image[name]} is not {folder[name]}")
    return lines


def _with_names(found: dict[str, File], inodes: dict[str, int]) -> dict[str, File]:
    names: dict[int, list[str]] = {}
    for name, number in inodes.items():
        names.setdefault(number, []).append(name)
    return {name: file._replace(names=tuple(sorted(names[inodes[name]]))) for name, file in found.items()}


def _read_at(file: Any, at: int, length: int) -> bytes:
    file.seek(at)
    return bytes(file.read(length))


def _digest(size: int, read: Callable[[int, int], bytes]) -> str:
    digest = hashlib.sha256()
    for at in range(0, size, CHUNK):
        digest.update(read(at, min(CHUNK, size - at)))
    return digest.hexdigest()
