"""Sockets of a VM's owner at paths of the host, noted in the VM's folder, so that none outlives its owner for long.

`published/` in the folder holds a symbolic link to each path, made before the socket is. Whoever finds the folder's
owner dead removes the sockets that still refuse connections, and no other file.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["forget_published", "note", "withdraw"]

_FOLDER = "published"


def note(folder: Path, path: Path) -> None:
    """Say in a VM's folder that `path` will be a socket of its owner."""
    notes = folder / _FOLDER
    notes.mkdir(mode=0o700, exist_ok=True)
    (notes / secrets.token_hex(8)).symlink_to(path)


def withdraw(folder: Path, path: Path) -> None:
    """Remove the socket at `path`, which is closed, and its note."""
    _remove_dead(path)
    for link in _notes(folder):
        if link.readlink() == path:
            link.unlink()


def forget_published(folder: Path) -> None:
    """Remove the sockets of a dead owner."""
    for link in _notes(folder):
        with suppress(OSError):
            _remove_dead(link.readlink())


def _notes(folder: Path) -> list[Path]:
    try:
        return list((folder / _FOLDER).iterdir())
    except FileNotFoundError:
        return []


def _remove_dead(path: Path) -> None:
    with suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode) and _refuses(path):
            path.unlink()


def _refuses(path: Path) -> bool:
    file = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
            client.connect(f"/proc/self/fd/{file}")
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False
