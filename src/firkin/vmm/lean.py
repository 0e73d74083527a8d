"""A QEMU that loads no library it has no use for: a copy of the installed one that doesn't ask for them.

A distribution's QEMU is linked to some fifty libraries, most of them for what no VM here does: VNC, RDMA, TLS, D-Bus, a
disassembler. Half of the time until its `main` is spent on loading and binding them, and each VM has pages of its own
of every one. The copy is the same program with fewer DT_NEEDED entries; what they would have defined is undefined and
weak, so that a call to it ends the process. Of libgnutls two functions are called nevertheless: guest/preload has them.

Source of the format: the System V ABI, chapters 4 and 5 (sections, dynamic linking), and the Linux Standard Base, Core,
10.7 (symbol versions: `Elfxx_Verneed`, `Elfxx_Vernaux`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import logging
import os
import struct
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from firkin import faults
from firkin.errors import BootError
from firkin.vmm.accel import boots
from firkin.vmm.assets import BootAssets
from firkin.vmm.host import HostCapabilities, Lean

__all__ = ["UNUSED", "find_lean", "without"]

_log = logging.getLogger("firkin.vmm.lean")
_BEFORE_PUBLISH = faults.declare("lean.before-publish", "a lean QEMU was written and tried under a temporary name")

# By the first part of their name. Nothing that a VM's command line here (`firkin.vmm.argv`) makes QEMU do needs them.
UNUSED = frozenset(
    (
        "libbpf",  # RSS of network cards
        "libcapstone",  # disassembly
        "libfuse3",  # block devices exported by FUSE
        "libgio-2.0",  # D-Bus displays
        "libgmp",  # TLS and LUKS
        "libgnutls",
        "libgobject-2.0",
        "libhogweed",
        "libibverbs",  # RDMA
        "libjpeg",  # VNC and screenshots
        "libnettle",
        "libpmem",  # persistent memory
        "libpng16",
        "librdmacm",
        "libsasl2",  # logins of VNC
        "libslirp",  # the network of `-netdev user`
        "libudev",  # multipath devices
        "libvdeplug",  # VDE switches
        "libzstd",  # compressed images, migration and dumps
    )
)
# Under emulation and on a busy host; a copy that doesn't run ends at once.
_LIMIT = 60.0
_MAX_SIZE = 256 << 20
# Copies of other QEMUs that are kept, the newest.
_MAX_OTHERS = 2
_UNFINISHED = "new-"
_FORMAT = 1

_EXECUTABLE = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
_SHT_DYNAMIC, _SHT_DYNSYM, _SHT_VERNEED, _SHT_VERSYM = 6, 11, 0x6FFFFFFE, 0x6FFFFFFF
_DT_NULL, _DT_NEEDED, _DT_VERNEED, _DT_VERNEEDNUM = 0, 1, 0x6FFFFFFE, 0x6FFFFFFF
_GLOBAL, _WEAK = 1, 2
_UNVERSIONED = 1  # VER_NDX_GLOBAL
_HIDDEN = 0x8000


def without(program: bytes, names: Collection[str]) -> bytes:
    """The ELF executable `program`, no longer linked to the libraries of `names` (their file name up to ".so").

    Raises `ValueError` where it is not one of 64 bits, little-endian, with symbol versions, or linked to none of them.
    """
    try:
        return _Elf(program).without(names)
    except (struct.error, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"no ELF executable as a linker makes it: {error!r}") from error


def _check_kind(program: bytes) -> None:
    if not program.startswith(_EXECUTABLE):
        raise ValueError("no little-endian ELF file of 64 bits")


class _Elf:
    """An ELF file that is changed in place: no offset in it moves."""

    def __init__(self, program: bytes) -> None:
        _check_kind(program)
        self._data = bytearray(program)
        (table,) = struct.unpack_from("<Q", program, 40)
        size, count = struct.unpack_from("<HH", program, 58)
        # By type: name, type, flags, address, offset, size, link, info, alignment, size of an entry.
        self._table = [struct.unpack_from("<IIQQQQIIQQ", program, table + size * index) for index in range(count)]
        self._sections = {section[1]: section for section in self._table}

    def without(self, names: Collection[str]) -> bytes:
        entries = list(self._entries(_SHT_DYNAMIC, "<QQ"))
        needed = {value: self._string(_SHT_DYNAMIC, value) for tag, value in entries if tag == _DT_NEEDED}
        dropped = {name for name in needed.values() if name.partition(".so")[0] in names}
        if not dropped:
            raise ValueError("it is linked to none of them")
        lost, first, left = self._unneed(dropped)
        self._weaken(lost)
        kept = []
        for tag, value in entries:
            if tag == _DT_NEEDED and needed[value] in dropped:
                continue
            kept.append((tag, {_DT_VERNEED: value + first, _DT_VERNEEDNUM: left}.get(tag, value)))
        start = self._sections[_SHT_DYNAMIC][4]
        for index, entry in enumerate(kept + [(_DT_NULL, 0)] * (len(entries) - len(kept))):
            struct.pack_into("<QQ", self._data, start + 16 * index, *entry)
        return bytes(self._data)

    def _unneed(self, dropped: Collection[str]) -> tuple[set[int], int, int]:
        """Take the versions of the `dropped` out of their chain: which they were, by how much its first entry moved,
        and how many there are left."""
        start = at = self._sections[_SHT_VERNEED][4]
        lost: set[int] = set()
        kept: list[int] = []
        length = self._sections[_SHT_VERNEED][7]
        if length > self._sections[_SHT_VERNEED][5] // 16:
            raise ValueError("more symbol versions than there is room for")
        for _ in range(length):
            _, count, file, aux, following = struct.unpack_from("<HHIII", self._data, at)
            if self._string(_SHT_VERNEED, file) in dropped:
                version = at + aux
                for _ in range(count):
                    _, _, number, _, next_version = struct.unpack_from("<IHHII", self._data, version)
                    lost.add(number)
                    version += next_version
            else:
                kept.append(at)
            at += following
        for entry, following in itertools.pairwise([*kept, 0]):
            struct.pack_into("<I", self._data, entry + 12, max(following - entry, 0))
        return lost, kept[0] - start, len(kept)

    def _weaken(self, lost: Collection[int]) -> None:
        """Make symbols weak that are of a `lost` version, or of none: those may be a dropped library's.

        Also where they are defined: data of a library's is copied to the program's. To ld.so(8) weak says only that
        nobody else has to define it.
        """
        symbols, versions = self._sections[_SHT_DYNSYM][4], self._sections[_SHT_VERSYM][4]
        numbers = [number & ~_HIDDEN for (number,) in self._entries(_SHT_VERSYM, "<H")]
        for index, (_, info, *_) in enumerate(self._entries(_SHT_DYNSYM, "<IBBHQQ")):
            number = numbers[index]
            if info >> 4 == _GLOBAL and (number <= _UNVERSIONED or number in lost):
                struct.pack_into("<B", self._data, symbols + 24 * index + 4, _WEAK << 4 | info & 15)
            if number in lost:
                struct.pack_into("<H", self._data, versions + 2 * index, _UNVERSIONED)

    def _entries(self, kind: int, layout: str) -> Iterator[tuple[int, ...]]:
        section = self._sections[kind]
        return struct.iter_unpack(layout, self._data[section[4] : section[4] + section[5]])

    def _string(self, kind: int, offset: int) -> str:
        """From the string table that the section of `kind` is linked to."""
        start = self._table[self._sections[kind][6]][4] + offset
        return self._data[start : self._data.index(0, start)].decode()


def find_lean(
    host: HostCapabilities, assets: BootAssets, folder: Path, *, unused: Collection[str] = UNUSED
) -> Lean | None:
    """The copy of `host.qemu` in `folder`, made where it is missing; None where none can be made or none runs.

    Before a copy is kept it has booted a kernel. Blocks: some milliseconds, and the first time a second or two.
    """
    try:
        with Path(host.qemu).open("rb") as program:
            _check_kind(program.read(len(_EXECUTABLE)))
        lean = Lean(str(folder / f"qemu-system-{host.arch}-{_key(host, unused)}"), _modules(host), _firmware(host))
        with (folder / ".trial").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not Path(lean.program).exists():
                _make(lean, host, assets, folder, unused)
    except (OSError, ValueError, BootError, subprocess.SubprocessError) as error:
        _log.info("%s runs as it is, with all of its libraries: %s", host.qemu, error)
        return None
    return lean


def _key(host: HostCapabilities, unused: Collection[str]) -> str:
    inputs = f"{_FORMAT} {host.qemu} {host.qemu_identity} {sorted(unused)}"
    return hashlib.blake2b(inputs.encode(), digest_size=8).hexdigest()


def _make(lean: Lean, host: HostCapabilities, assets: BootAssets, folder: Path, unused: Collection[str]) -> None:
    # What runs one has it open.
    for torn in folder.glob(f"qemu-system-{host.arch}-{_UNFINISHED}*"):
        torn.unlink(missing_ok=True)
    copies = sorted(folder.glob(f"qemu-system-{host.arch}-*"), key=lambda path: path.stat().st_mtime)
    for old in copies[:-_MAX_OTHERS]:
        old.unlink(missing_ok=True)
    source = Path(host.qemu)
    if source.stat().st_size > _MAX_SIZE:
        raise ValueError("it is too large")
    handle, temporary = tempfile.mkstemp(prefix=f"qemu-system-{host.arch}-{_UNFINISHED}", dir=folder)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(without(source.read_bytes(), unused))
            # World-readable inside a private folder, as `launch` opens it for another user.
            os.fchmod(out.fileno(), 0o555)
        refusal = boots(replace(host, lean=replace(lean, program=temporary)), assets, _LIMIT)
        if refusal is not None:
            raise ValueError(refusal)
        faults.point(_BEFORE_PUBLISH)
        Path(temporary).replace(lean.program)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _modules(host: HostCapabilities) -> str:
    """Where parts of QEMU are that it loads by itself; empty where it is built without."""
    prefix = Path(host.qemu).resolve().parent.parent
    for pattern in ("lib/*/qemu", "lib64/qemu", "lib/qemu"):
        for folder in sorted(prefix.glob(pattern)):
            if any(folder.glob(f"accel-*-{host.arch}.so")):
                return str(folder)
    return ""


def _firmware(host: HostCapabilities) -> tuple[str, ...]:
    """The folders that QEMU looks for firmware in; it says them one a line."""
    told = subprocess.run([host.qemu, "-L", "help"], capture_output=True, text=True, timeout=30, check=True)
    folders = [os.path.normpath(line) for line in told.stdout.splitlines() if line.startswith("/")]
    if not folders:
        raise OSError(errno.ENOENT, "it says no folder of firmware")
    return tuple(folders)
