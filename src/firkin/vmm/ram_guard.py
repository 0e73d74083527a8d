"""Memory goes back from a clone without a hole in the RAM file that all clones share.

A guest that frees memory says so (free page reporting), and QEMU gives it back in two steps: it punches a hole into
the file behind the memory, and drops its own copy (`ram_block_discard_range`). For a clone only the second is right:
its copies are private, the file is everybody's. So each clone's QEMU runs under a seccomp filter that asks this
process about every hole (seccomp_unotify(2)): one in a RAM file is said to be made, and is not; any other, in a disk's
overlay, goes to the kernel. The page then reads as it does in the file: free pages may hold anything, and a kernel
that wants them zeroed does not report them (`page-poison=off`).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import struct
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

__all__ = ["RamGuard", "identity_of"]

_log = logging.getLogger("firkin.vmm.ram_guard")

# By machine: AUDIT_ARCH_…, and the numbers of seccomp(2) and fallocate(2).
_NUMBERS = {"x86_64": (0xC000003E, 317, 285), "aarch64": (0xC00000B7, 277, 47)}
# FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_HOLE = 0x03
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
# struct seccomp_notif: id, pid, flags; seccomp_data: nr, arch, instruction pointer, six arguments.
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_RECEIVE = 3 << 30 | _NOTIFICATION.size << 16 | ord("!") << 8
_SEND = 3 << 30 | _ANSWER.size << 16 | ord("!") << 8 | 1
_CONTINUE = 1


class RamGuard:
    """Filters the thread that makes it, and all that this thread starts from then on; raises `OSError` where it can't.

    `files` are the device and inode of the RAM files in use, counted.
    """

    def __init__(self, files: Counter[tuple[int, int]]) -> None:
        self._files = files
        self._listener = _filter_this_thread()
        threading.Thread(target=self._serve, name="firkin-ram-guard", daemon=True).start()

    @classmethod
    def works(cls) -> bool:
        """Whether a hole in a guarded file is not made here, and one in another is: tried, in a thread of its own."""
        with ThreadPoolExecutor(1) as thread:
            try:
                return thread.submit(_try).result()
            except OSError as error:
                _log.debug("RAM files can't be guarded: %s", error)
                return False

    def _serve(self) -> None:
        watched = select.poll()
        watched.register(self._listener, select.POLLIN)
        while True:
            # POLLHUP: nobody is filtered any more.
            if not any(event & select.POLLIN for _, event in watched.poll()):
                os.close(self._listener)
                return
            asked = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(self._listener, _RECEIVE, asked)
                fcntl.ioctl(self._listener, _SEND, self._answer(bytes(asked)))
            except OSError as error:
                # It was killed while it asked.
                if error.errno not in (errno.ENOENT, errno.EINTR):
                    _log.warning("the guard of RAM files has ended: %s", error)
                    return

    def _answer(self, asked: bytes) -> bytes:
        fields = _NOTIFICATION.unpack(asked)
        number, thread, descriptor = fields[0], fields[1], fields[6] & 0xFFFFFFFF
        try:
            found = Path(f"/proc/{thread}/fd/{descriptor}").stat()
        except OSError:
            # It can't be told: QEMU's disks do without holes then.
            return _ANSWER.pack(number, 0, -errno.EOPNOTSUPP, 0)
        if self._files[found.st_dev, found.st_ino] > 0:
            return _ANSWER.pack(number, 0, 0, 0)
        return _ANSWER.pack(number, 0, 0, _CONTINUE)


def identity_of(fd: int) -> tuple[int, int]:
    """Device and inode, by which a file is known."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _try() -> bool:
    files: Counter[tuple[int, int]] = Counter()
    RamGuard(files)
    with tempfile.TemporaryFile() as guarded, tempfile.TemporaryFile() as other:
        left = []
        for file in (guarded, other):
            file.write(b"x" * 8192)
            file.flush()
            if file is guarded:
                files[identity_of(file.fileno())] += 1
            if _libc().fallocate(file.fileno(), _HOLE, _long(0), _long(4096)) != 0:
                return False
            left.append(os.pread(file.fileno(), 1, 0))
    return left == [b"x", b"\0"]


def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _long(value: int) -> ctypes.c_long:
    import ctypes

    return ctypes.c_long(value)


def _filter_this_thread() -> int:
    """Install the filter; the descriptor on which it asks."""
    import ctypes

    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise OSError(errno.ENOSYS, f"no numbers of system calls for {machine}")
    arch, seccomp, fallocate = _NUMBERS[machine]
    steps = (
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, 5, arch),
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 3, fallocate),
        (_LOAD, 0, 0, 24),
        (_EQUAL, 0, 1, _HOLE),
        (_RETURN, 0, 0, _ASK),
        (_RETURN, 0, 0, _ALLOW),
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    described = struct.pack("@HP", len(steps), ctypes.addressof(program))
    libc = _libc()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    listener = int(libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, described))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener
