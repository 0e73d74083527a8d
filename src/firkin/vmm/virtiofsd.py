"""One virtiofsd for each share of a VM: confined, and gone with the VM or with this process."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firkin import faults
from firkin.errors import InvalidInputError
from firkin.vmm import share_room
from firkin.vmm.process import Child
from firkin.vmm.spawn import spawn

if TYPE_CHECKING:
    from firkin.vmm.config import Share
    from firkin.vmm.folder import VmFolder
    from firkin.vmm.host import HostCapabilities

__all__ = ["IdMaps", "id_maps", "start_virtiofsd", "try_sharing"]

_STARTED = faults.declare("share.started", "virtiofsd was started, there is no VM yet")
# docs/decisions/mounts.md says why.
_OPTIONS = (
    "--rlimit-nofile=0",
    "-o",
    f"source={share_room.SHARE},sandbox=namespace,cache=auto,timeout=0,log_level=err",
)


@dataclass(frozen=True, slots=True)
class IdMaps:
    """Lines of user_namespaces(7) ("inside outside length") that a virtiofsd runs under, and what that means."""

    uids: tuple[str, ...]
    gids: tuple[str, ...]
    meaning: str

    @property
    def several(self) -> bool:
        """More than the user's own id: mapped by newuidmap and newgidmap."""
        return len(self.uids) > 1 and len(self.gids) > 1


def id_maps() -> IdMaps:
    """Which owners of files a share of this user's can show and make.

    Root: each id is the same on both sides. Another user is root inside; further ids are the subordinate ones, where
    /etc/subuid and /etc/subgid grant some and newuidmap(1) is installed.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        own = [tuple(_same(line) for line in _lines(Path(f"/proc/self/{kind}_map"))) for kind in ("uid", "gid")]
        return IdMaps(own[0], own[1], "ids are the same on both sides")
    granted = [_granted(Path(f"/etc/sub{kind}"), uid) for kind in ("uid", "gid")]
    if all(granted) and shutil.which("newuidmap") and shutil.which("newgidmap"):
        (users, groups) = granted
        return IdMaps(
            (f"0 {uid} 1", f"1 {users}"),
            (f"0 {gid} 1", f"1 {groups}"),
            f"root inside is user {uid}, the others are subordinate ids ({users.replace(' ', '+')})",
        )
    return IdMaps((f"0 {uid} 1",), (f"0 {gid} 1",), f"root inside is user {uid}, others can't own files")


def _same(line: str) -> str:
    first, _, length = line.split()
    return f"{first} {first} {length}"


def _granted(table: Path, uid: int) -> str:
    """subuid(5): "name-or-uid:first:count"; the user's first range as "first count"."""
    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        # newuidmap wants a name.
        return ""
    for line in _lines(table):
        name, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if name in names and first.isdigit() and count.isdigit():
            return f"{first} {count}"
    return ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def start_virtiofsd(folder: VmFolder, index: int, share: Share, host: HostCapabilities) -> tuple[Child, socket.socket]:
    """Spawn the virtiofsd of share number `index`, and a connection to it for QEMU. It ends when QEMU hangs up.

    Raises `InvalidInputError` where there is nothing to share or no virtiofsd, `BootError` where it can't be started.
    """
    if not host.virtiofsd:
        raise InvalidInputError("shares need virtiofsd, which is not installed", hint="apt install qemu-system-common")
    if not (share.source.is_file() if share.only_file else share.source.is_dir()):
        what = "file" if share.only_file else "folder"
        raise InvalidInputError(f"there is no {what} to share at {share.source}", value=share.source)
    maps = id_maps()
    room = _room(share.source, "file" if share.only_file else "folder", "ro" if share.read_only else "rw", maps)
    said = folder.path / f"virtiofsd{index}.log"
    with ExitStack() as opened:
        listener = opened.enter_context(folder.listen(f"share{index}.sock"))
        # Both ends are there before it runs: nothing waits for a path, and it ends though its owner died just now.
        connected = folder.connect(f"share{index}.sock")
        try:
            log = opened.enter_context(said.open("ab"))
            child = spawn(
                [*room, host.virtiofsd, f"--fd={listener.fileno()}", *_OPTIONS],
                fds=[listener.fileno()],
                stderr=log,
                # newuidmap(1) needs its right; share_room sets it afterwards.
                no_new_privs=not maps.several,
                cage=folder.cage,
            )
        except BaseException:
            connected.close()
            raise
    faults.point(_STARTED)
    return Child(child, f"the virtiofsd of {share.source}", said=said), connected


def try_sharing() -> tuple[bool, str]:
    """Whether this user can share here, and whose files are whose then, or why not. Blocks for a moment."""
    maps = id_maps()
    room = _room(Path("/"), "folder", "ro", maps)
    command = [*room, shutil.which("true") or "/bin/true"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    return done.returncode == 0, done.stderr.strip() or maps.meaning


def _room(source: Path, kind: str, mode: str, maps: IdMaps) -> list[str]:
    program = [sys.executable, "-I", "-S", share_room.__file__]
    return [*program, str(source), kind, mode, ",".join(maps.uids), ",".join(maps.gids)]
