"""What this host can do, found out once and kept as one frozen value."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from firkin.errors import BootError, InvalidInputError
from firkin.frozen import dataclass
from firkin.types.state import StateDirs
from firkin.vmm.assets import BootAssets

__all__ = ["HostCapabilities", "Lean", "Verdict", "boot_id", "probe", "recall"]

_OLDEST_QEMU = (7, 2, 0)
_MACHINES = {"x86_64": "microvm", "aarch64": "virt"}
# The ids a root-owned QEMU runs under, one a VM: high enough to be nobody's.
UID_BASE = 0x4B000000
UID_COUNT = 1 << 20
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which accelerator guests run under here, and why: "kvm" or "tcg", and one sentence."""

    accelerator: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lean:
    """What runs in place of an installed QEMU: a copy that loads fewer libraries (`firkin.vmm.lean`).

    The copy is at `program`, and does not find by itself the folders of `modules` (empty: it has none) and `firmware`.
    """

    program: str
    modules: str
    firmware: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostCapabilities:
    """The host as far as a VM is concerned. Paths are absolute, or empty where a program is not installed.

    `tsc_khz` is 0 where there is no such counter. `uid_base`: the first of `uid_count` ids that QEMU may run as; a
    count of 0: it runs as this process's user. `memory` is the host's, in bytes.
    `kvm_group` may open /dev/kvm, -1 for none. `qemu_identity` and `processor` change when those do. `ram_guard`: see
    `firkin.vmm.ram_guard`. `lean`: what runs for `qemu`, None for that itself.
    """

    arch: str
    machine: str
    qemu: str
    qemu_version: tuple[int, int, int]
    accelerator: str
    accelerator_reason: str
    tsc_khz: int
    sandbox: bool
    virtiofsd: str
    cpus: int
    memory: int
    boot_id: str
    uid_base: int
    uid_count: int
    kvm_group: int
    qemu_identity: str
    processor: str
    ram_guard: bool = False
    lean: Lean | None = None

    @staticmethod
    def identity_of(program: str) -> str:
        """Changes when the program at this path does. Raises `OSError` where there is none."""
        found = Path(program).stat()
        return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"

    @property
    def read_only_ram(self) -> bool:
        """QEMU can map a RAM file privately without being able to write it (8.2 and newer)."""
        return self.qemu_version >= (8, 2, 0)

    @property
    def returns_memory(self) -> bool:
        """Clones give back what their guest frees. A QEMU that maps the file read-only refuses to."""
        return self.ram_guard and not self.read_only_ram

    def cpu_model(self, asked: str = "", *, nested: bool = False) -> str:
        """QEMU's `-cpu`. Under TCG a small model boots faster than `max`; ARAT stops a guest's tick when it idles."""
        if asked:
            return asked
        if self.arch != "x86_64":
            return "host" if self.accelerator == "kvm" else "max"
        if self.accelerator == "kvm":
            return "host" if nested else "host,-vmx,-svm"
        return "Nehalem-v1,+rdrand,+arat"


def probe(
    dirs: StateDirs, assets: BootAssets, *, accel: str = "", environ: Mapping[str, str] = os.environ
) -> HostCapabilities:
    """Look at the host. The accelerator's verdict is remembered for this kernel, QEMU and boot of the host.

    Blocks: up to some seconds the first time, a millisecond later. Raises `BootError` (not transient) where something
    that every VM needs is missing, and `InvalidInputError` for an accelerator that was asked for and does not work.
    """
    found = _Programs.find(accel, environ)
    note = _note_path(dirs, assets, found)
    return _read_note(note) or _find_out(found, assets, note)


def recall(
    dirs: StateDirs, assets: BootAssets, *, accel: str = "", environ: Mapping[str, str] = os.environ
) -> HostCapabilities | None:
    """As `probe`, but None where that would have to look."""
    return _read_note(_note_path(dirs, assets, _Programs.find(accel, environ)))


@dataclass(frozen=True, slots=True)
class _Programs:
    """What is asked for, and where the programs for it are."""

    accel: str
    arch: str
    qemu: str

    @classmethod
    def find(cls, accel: str, environ: Mapping[str, str]) -> _Programs:
        accel = accel or environ.get("FIRKIN_ACCEL", "") or "auto"
        if accel not in ("auto", "kvm", "tcg"):
            raise InvalidInputError(f"FIRKIN_ACCEL is {accel!r}", value=accel, hint="kvm, tcg or auto")
        arch = os.uname().machine
        if arch not in _MACHINES:
            raise BootError(f"no VMs on {arch} hosts", hint="x86-64 or arm64")
        qemu = environ.get("FIRKIN_QEMU") or shutil.which(f"qemu-system-{arch}")
        if not qemu:
            raise BootError(f"qemu-system-{arch} is not installed", hint="apt install qemu-system-x86")
        return cls(accel, arch, qemu)


def _find_out(programs: _Programs, assets: BootAssets, note: Path) -> HostCapabilities:
    # Only the first start on a host comes here.
    from firkin.vmm import accel as trial
    from firkin.vmm.lean import find_lean
    from firkin.vmm.ram_guard import RamGuard
    from firkin.vmm.tsc import tsc_khz

    qemu, arch = programs.qemu, programs.arch
    version, sandbox = _qemu_version(qemu)
    uid_base, uid_count = _uids()
    found = HostCapabilities(
        arch=arch,
        machine=_MACHINES[arch],
        qemu=qemu,
        qemu_version=version,
        accelerator="tcg",
        accelerator_reason="",
        tsc_khz=tsc_khz() or 0,
        sandbox=sandbox,
        virtiofsd=_which("virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        boot_id=boot_id(),
        uid_base=uid_base,
        uid_count=uid_count,
        kvm_group=_kvm_group(),
        qemu_identity=HostCapabilities.identity_of(qemu),
        processor=_processor(),
        ram_guard=RamGuard.works(),
    )
    verdict = trial.judge(found, assets, programs.accel, note.parent)
    found = replace(found, accelerator=verdict.accelerator, accelerator_reason=verdict.reason)
    found = replace(found, lean=find_lean(found, assets, note.parent))
    temporary = note.with_name(f"{note.name}.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(found)))
    temporary.replace(note)
    return found


def _note_path(dirs: StateDirs, assets: BootAssets, programs: _Programs) -> Path:
    program = f"{programs.qemu} {HostCapabilities.identity_of(programs.qemu)}"
    key = f"4 {boot_id()} {program} {assets.kernel_digest} {programs.accel} {os.getuid()}"
    return dirs.make("cache", "assets") / f"host-{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.json"


def _read_note(note: Path) -> HostCapabilities | None:
    try:
        content = json.loads(note.read_bytes())
        content["qemu_version"] = tuple(content["qemu_version"])
        if lean := content["lean"]:
            content["lean"] = Lean(lean["program"], lean["modules"], tuple(lean["firmware"]))
            Path(lean["program"]).stat()
        return HostCapabilities(**content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _qemu_version(qemu: str) -> tuple[tuple[int, int, int], bool]:
    """The version, and whether this build has `-sandbox`."""
    try:
        text = subprocess.run([qemu, "-help"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BootError(f"{qemu} does not run", hint="reinstall qemu-system-x86") from error
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise BootError(f"{qemu} does not say its version")
    version = (int(match[1]), int(match[2]), int(match[3]))
    if version < _OLDEST_QEMU:
        raise BootError(f"QEMU {'.'.join(map(str, version))} is too old", hint="7.2 or newer")
    return version, "\n-sandbox on" in text


def _uids() -> tuple[int, int]:
    """As root each QEMU gets an id of its own, in a user namespace without so many a shared one; else it is ours."""
    if os.geteuid() != 0:
        return 0, 0
    for base, count in ((UID_BASE, UID_COUNT), (_NOBODY, 1)):
        if _mapped(Path("/proc/self/uid_map"), base, count) and _mapped(Path("/proc/self/gid_map"), base, count):
            return base, count
    return 0, 0


def _mapped(table: Path, base: int, count: int) -> bool:
    """user_namespaces(7): lines of "first-inside first-outside length"."""
    for line in table.read_text().splitlines():
        first, _, length = (int(part) for part in line.split())
        if first <= base and base + count <= first + length:
            return True
    return False


def _kvm_group() -> int:
    """The group that may use /dev/kvm, where it is not root's; -1 for none."""
    try:
        found = Path("/dev/kvm").stat()
    except OSError:
        return -1
    return found.st_gid if found.st_gid and found.st_mode & 0o060 == 0o060 else -1


def _processor() -> str:
    """Model and features of the first processor, hashed: what the CPU model "host" stands for."""
    words = ("model name", "flags", "microcode", "CPU part", "Features")
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    told = "\n".join(line for line in lines if line.startswith(words))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def boot_id() -> str:
    """Another after each start of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _which(*names: str) -> str:
    return next((found for name in names if (found := shutil.which(name))), "")
