"""Boot assets: the uncompressed kernel and the initramfs, made once and kept by content."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from firkin import faults
from firkin.errors import BootError
from firkin.frozen import dataclass
from firkin.types.state import StateDirs
from firkin.vmm.initramfs import directory, file, newc
from firkin.vmm.kernel import KernelImage, extract_vmlinux, find_kernel
from firkin.vmm.modules import GUEST_MODULES, module_closure, read_module

__all__ = ["GUEST_FILES", "PRELOAD_LIBRARY", "BootAssets", "guest_folder", "recall_assets", "resolve_assets"]

# What a lean QEMU has in place of libgnutls (guest/preload).
PRELOAD_LIBRARY = "libpreload.so"
# What tools/build_guest.py makes: for the host, and for the guest by where it has them.
_IN_GUEST = {"vminitd": "init", "vmexec": "bin/vmexec", "pilot": "bin/pilot"}
GUEST_FILES = ("launch", PRELOAD_LIBRARY, *_IN_GUEST)

# Part of every key: to be raised when what is made from equal inputs changes.
_FORMAT = "1"
_BEFORE_PUBLISH = faults.declare("assets.before-publish", "vmlinux or initramfs written under a temporary name")


@dataclass(frozen=True, slots=True)
class BootAssets:
    """What QEMU boots. `kernel_digest` and `initramfs_digest` are the SHA-256 of the files' content, in hexadecimal.

    `kernel` names the image that `vmlinux` came from.
    """

    vmlinux: Path
    initramfs: Path
    kernel_digest: str
    initramfs_digest: str
    kernel: KernelImage


class _Hash(Protocol):
    def hexdigest(self) -> str: ...


Hasher = Callable[[bytes], _Hash]
_memo: dict[str, BootAssets] = {}


def guest_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the guest's binaries are: `FIRKIN_GUEST_DIR`, else in the package. Raises `BootError` if they are not."""
    named = environ.get("FIRKIN_GUEST_DIR")
    folder = Path(named) if named else Path(__file__).parent.parent / "_guest" / os.uname().machine
    for name in GUEST_FILES:
        if not (folder / name).is_file():
            raise BootError(f"{name} is not at {folder}", hint="run tools/build_guest.py, or install a wheel")
    return folder


def resolve_assets(
    dirs: StateDirs,
    kernel: KernelImage | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    hasher: Hasher = hashlib.sha256,
) -> BootAssets:
    """The assets for `kernel` (or the default one), made where the cache has none yet.

    What was resolved once is found again by the inputs' identity (device, inode, size, times) without reading them:
    within this process by a memo, across processes by a note in `cache/assets/`. Raises `BootError` and
    `InvalidInputError`.
    """
    kernel = kernel or find_kernel(dirs, environ)
    guest = guest_folder(environ)
    folder = dirs.make("cache", "assets")
    identity = _identity_of(kernel, guest, folder)
    found = _recall(identity, folder, kernel)
    if found is None:
        with _sole_maker(folder):
            note = _note(identity, folder)
            found = _read_note(note, folder, kernel) or _make(folder, kernel, guest, note, hasher)
        _memo[identity] = found
    return found


def recall_assets(
    dirs: StateDirs, kernel: KernelImage | None = None, *, environ: Mapping[str, str] = os.environ
) -> BootAssets | None:
    """As `resolve_assets`, but None where the assets would have to be made."""
    kernel = kernel or find_kernel(dirs, environ)
    folder = dirs.make("cache", "assets")
    return _recall(_identity_of(kernel, guest_folder(environ), folder), folder, kernel)


def _recall(identity: str, folder: Path, kernel: KernelImage) -> BootAssets | None:
    found = _memo.get(identity)
    if found is None or not (found.vmlinux.exists() and found.initramfs.exists()):
        found = _read_note(_note(identity, folder), folder, kernel)
        if found is None:
            _memo.pop(identity, None)
            return None
        _memo[identity] = found
    return replace(found, kernel=kernel)


def _identity_of(kernel: KernelImage, guest: Path, folder: Path) -> str:
    inputs = [kernel.path, *(guest / name for name in _IN_GUEST)]
    if kernel.modules is not None:
        inputs += [kernel.modules, kernel.modules / "modules.dep"]
    return "\n".join([_FORMAT, str(folder), *GUEST_MODULES, *(_identity(path) for path in inputs)])


def _note(identity: str, folder: Path) -> Path:
    return folder / f"resolved-{hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()}.json"


@contextmanager
def _sole_maker(folder: Path) -> Iterator[None]:
    """One process makes assets at a time; what one that was killed left is removed first."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        for left in folder.glob(".new-*"):
            left.unlink()
        yield
    finally:
        os.close(fd)


def _make(folder: Path, kernel: KernelImage, guest: Path, note: Path, hasher: Hasher) -> BootAssets:
    vmlinux = extract_vmlinux(kernel.path.read_bytes())
    initramfs = _initramfs(kernel, guest)
    kernel_digest, initramfs_digest = hasher(vmlinux).hexdigest(), hasher(initramfs).hexdigest()
    assets = _assets(folder, kernel, kernel_digest, initramfs_digest)
    # World-readable inside a private folder: QEMU gets descriptors, and may run as another user.
    for path, content in ((assets.vmlinux, vmlinux), (assets.initramfs, initramfs)):
        if not path.exists():
            _publish(path, content, 0o444)
    _publish(note, json.dumps({"kernel": kernel_digest, "initramfs": initramfs_digest}).encode(), 0o600)
    return assets


def _initramfs(kernel: KernelImage, guest: Path) -> bytes:
    """The layout that docs/internals.md gives ("Inside the guest")."""
    entries = [
        directory(path) for path in ("bin", "dev", "etc", "etc/firkin", "lib", "lib/modules", "proc", "run", "sys")
    ]
    entries += [file(path, (guest / name).read_bytes(), 0o755) for name, path in _IN_GUEST.items()]
    paths = module_closure(kernel.modules) if kernel.modules else []
    for number, path in enumerate(paths):
        name = path.name.split(".ko")[0]
        entries.append(file(f"lib/modules/{number:02}-{name}.ko", read_module(path)))
    return newc(entries)


def _assets(folder: Path, kernel: KernelImage, kernel_digest: str, initramfs_digest: str) -> BootAssets:
    return BootAssets(
        folder / f"vmlinux-{kernel_digest}",
        folder / f"initramfs-{initramfs_digest}",
        kernel_digest,
        initramfs_digest,
        kernel,
    )


def _read_note(note: Path, folder: Path, kernel: KernelImage) -> BootAssets | None:
    try:
        content = json.loads(note.read_bytes())
        found = _assets(folder, kernel, str(content["kernel"]), str(content["initramfs"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.vmlinux.exists() and found.initramfs.exists() else None


def _publish(path: Path, content: bytes, mode: int) -> None:
    """Write `content` under another name and move it into place: nobody sees a torn file, whoever dies."""
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
            os.fchmod(out.fileno(), mode)
        faults.point(_BEFORE_PUBLISH)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _identity(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return f"{path} absent"
    return f"{path} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
