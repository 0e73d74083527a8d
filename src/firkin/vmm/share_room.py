"""A program of its own: close in on one shared folder or file, then become virtiofsd there.

`python -I -S share_room.py SOURCE folder|file rw|ro UIDS GIDS PROGRAM ARGUMENT…`, started by `firkin.vmm.virtiofsd`. It
imports nothing of Firkin, for it runs once for each share.

UIDS and GIDS are the lines of a user namespace's maps (user_namespaces(7)), joined by commas; empty for none. In a
mount namespace of its own the source is cloned with its submounts, made read-only there if asked, and put at
`/run/share`; a file lies in a folder of its own that cannot be written. virtiofsd then makes that folder its root.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys

__all__ = ["FILE", "SHARE", "main"]

ROOM = "/run"
SHARE = "/run/share"
FILE = "file"

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWUSER = 0x20000, 0x4000000, 0x8000000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC, _MOVE_MOUNT_F_EMPTY_PATH = 0x1, 0o2000000, 0x4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 0x1, 0x2, 0x4
# The same numbers on every architecture.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
# getgroups(2), which has a number of each architecture's own, and its AUDIT_ARCH.
_GETGROUPS = {"x86_64": (0xC000003E, 115), "aarch64": (0xC00000B7, 158)}
_OPEN_FILES = 1 << 20
_SIGKILL = 9

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"can't {what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *arguments: object) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _call(what, _libc.syscall(ctypes.c_long(number), *words))


def enter_user_namespace(uids: str, gids: str) -> None:
    """Have all rights over the ids of the maps and what they own, and none over the machine."""
    reader, writer = os.pipe()
    target = str(os.getpid())
    mapper = os.fork()
    if not mapper:
        # It stays outside: only there the maps of more than one id may be written.
        os.close(writer)
        try:
            if os.read(reader, 1):
                _write_maps(target, {"uid": uids, "gid": gids})
        except OSError as error:
            os.write(2, f"{error.filename}: {error.strerror}\n".encode())
            os._exit(1)
        os._exit(0)
    try:
        _call("make a user namespace", _libc.unshare(_CLONE_NEWUSER))
        os.write(writer, b".")
    finally:
        os.close(writer)
        os.close(reader)
        _, status = os.waitpid(mapper, 0)
    if status:
        raise OSError(errno.EPERM, "can't map ids")
    if _file("/proc/self/setgroups", os.O_RDONLY) == b"deny\n" and os.getgroups():
        _hide_groups()


def _write_maps(target: str, maps: dict[str, str]) -> None:
    for kind, lines in maps.items():
        path = f"/proc/{target}/{kind}_map"
        if os.geteuid() == 0:
            _file(path, os.O_WRONLY, lines.replace(",", "\n"))
            continue
        # A program with a right that a plain user lacks; it looks the ranges up in /etc/subuid and /etc/subgid.
        program = f"new{kind}map"
        if "," in lines and os.spawnlp(os.P_WAIT, program, program, target, *lines.replace(",", " ").split()) == 0:
            continue
        if kind == "gid":
            _file(f"/proc/{target}/setgroups", os.O_WRONLY, "deny")
        _file(path, os.O_WRONLY, lines.partition(",")[0])


def _file(path: str, flags: int, text: str = "") -> bytes:
    """Write `text`, or read, at once, as the files of a map want it."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode()) if text else None
        return b"" if text else os.read(fd, 4096)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)


def _hide_groups() -> None:
    """Answer getgroups(2) with none: here they can't be dropped, and virtiofsd gives up at the sight of any."""
    arch, number = _GETGROUPS[os.uname().machine]
    # seccomp(2), struct sock_filter: code, jump if true, jump if false, k. An errno of 0 is a result of 0.
    program = b"".join(
        struct.pack("=HBBI", *line)
        for line in (
            (0x20, 0, 0, 4),
            (0x15, 0, 3, arch),
            (0x20, 0, 0, 0),
            (0x15, 0, 1, number),
            (0x06, 0, 0, 0x00050000),
            (0x06, 0, 0, 0x7FFF0000),
        )
    )
    text = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    _call("set no_new_privs", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _call("set a filter", _libc.prctl(_PR_SET_SECCOMP, 2, ctypes.create_string_buffer(head, len(head)), 0, 0))


def furnish(source: bytes, is_file: bool, read_only: bool) -> None:
    """Put the source at `SHARE` in a mount namespace of this process's own."""
    _call("make a mount namespace", _libc.unshare(_CLONE_NEWNS | _CLONE_NEWIPC | _CLONE_NEWUTS))
    _call("keep mounts here", _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_SYMLINK_NOFOLLOW | (0 if is_file else _AT_RECURSIVE)
    tree = _syscall("open the source", _OPEN_TREE, _AT_FDCWD, source, flags)
    _restrict(tree, _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if read_only else 0), recursive=not is_file)
    room = b"mode=0755,size=64k"
    _call("mount a tmpfs", _libc.mount(b"share", ROOM.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, room))
    os.mkdir(SHARE, 0o755)  # noqa: PTH102 - pathlib takes longer to import than all of this takes to run
    target = SHARE
    if is_file:
        target = f"{SHARE}/{FILE}"
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    _syscall("place the source", _MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)
    room_fd = os.open(ROOM, os.O_PATH | os.O_CLOEXEC)
    _restrict(room_fd, _ATTR_RDONLY, recursive=False)
    os.close(room_fd)


def _restrict(mount: int, attributes: int, *, recursive: bool) -> None:
    """mount_setattr(2); struct mount_attr: set, clear, propagation, namespace."""
    attr = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    what = ctypes.create_string_buffer(attr, len(attr))
    _syscall("restrict the share", _MOUNT_SETATTR, mount, b"", flags, what, len(attr))


def _raise_limit(most: int) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except ValueError:
        # Not every root may: then it is as it was.
        return


def main(argv: list[str]) -> None:
    """Do all of it. Raises `OSError`, its text one line."""
    source, kind, mode, uids, gids, *command = argv
    owner = os.getppid()
    # Each file that the guest knows is held open, and the limit can't be raised from inside a namespace.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if os.geteuid() == 0 and most < _OPEN_FILES:
        _raise_limit(_OPEN_FILES)
    if uids:
        try:
            enter_user_namespace(uids, gids)
        except OSError:
            # Root has the rights already, only more of them than it needs.
            if os.geteuid():
                raise
    furnish(os.fsencode(source), kind == "file", mode == "ro")
    _call("set no_new_privs", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    # Changes of rights clear it.
    _call("die with the owner", _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))
    if os.getppid() != owner:
        raise OSError(errno.ESRCH, "the owner is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        raise SystemExit(str(error.strerror)) from None
