"""Base VMs in the cache: booted once, saved, and forked by every start of the same shape.

A base VM is a folder `cache/base/<key>/`: `ram`, `state` (of the devices), `manifest.json`. It appears whole or not
at all, and is never written again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from firkin.frozen import dataclass
from firkin.vmm.argv import kernel_arguments, machine_type
from firkin.vmm.assets import BootAssets
from firkin.vmm.config import VmConfig, disk_capacity
from firkin.vmm.host import HostCapabilities
from firkin.vmm.ramfile import digest, identity
from firkin.vmm.share_ports import PORTS

__all__ = ["BaseVm", "Shape", "collect", "discard", "open_base", "write_manifest"]

_log = logging.getLogger("firkin.vmm.base")
# Raised when a base VM made by older code must not be used.
_FORMAT = 3
_MAX_BASES = 12
_MAX_BYTES = 8 << 30
_MAX_MANIFEST = 1 << 16


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that a saved VM depends on; `key` names it."""

    inputs: str

    @classmethod
    def of(cls, config: VmConfig, host: HostCapabilities, assets: BootAssets) -> Shape:
        """Raises `InvalidInputError` where a disk is not there."""
        inputs = {
            "format": _FORMAT,
            "kernel": assets.kernel_digest,
            "initramfs": assets.initramfs_digest,
            "qemu": [host.qemu, host.qemu_version, host.qemu_identity],
            "machine": machine_type(config, host),
            "accelerator": host.accelerator,
            "cpu": host.cpu_model(config.cpu_model, nested=config.nested),
            # What "host" means: another processor under the same name must not be restored to.
            "processor": host.processor if host.accelerator == "kvm" else "",
            "sandbox": host.sandbox,
            "tsc_mhz": round(host.tsc_khz / 1000),
            "cpus": config.cpus,
            "memory": config.memory,
            "cmdline": kernel_arguments(config, host, tsc=False),
            "disks": [[disk.read_only, disk_capacity(disk.size())] for disk in config.disks],
            "returns_memory": host.returns_memory,
            "networks": [[*card.addresses, *card.gateways, card.mtu] for card in config.networks],
            "parked": hashlib.sha256(config.parked).hexdigest(),
            "share_ports": PORTS if config.shares else 0,
        }
        return cls(json.dumps(inputs, sort_keys=True))

    @property
    def key(self) -> str:
        """What its folder is called: 128 bits of a hash of all that the base VM depends on, in hexadecimal."""
        return hashlib.sha256(self.inputs.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class BaseVm:
    """An opened base VM: descriptors for one fork, closed at the end of a `with` block."""

    folder: Path
    ram: int
    state: int
    sentinel: bytes

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.ram)
        os.close(self.state)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_base(folder: Path, host: HostCapabilities, *, rehash: Callable[[int], str] = digest) -> BaseVm | None:
    """The base VM at `folder`, checked; None where there is none. One that was damaged or written to is thrown away.

    The state is hashed each time. The RAM file is known by its identity, which any write would change; after a
    restart of the host, or where the identity differs, `rehash` decides.
    """
    ram = state = -1
    try:
        manifest = _read_manifest(folder)
        state = os.open(folder / "state", os.O_RDONLY | os.O_CLOEXEC)
        ram = os.open(folder / "ram", os.O_RDONLY | os.O_CLOEXEC)
        content = os.pread(state, os.fstat(state).st_size, 0)
        sound = hashlib.sha256(content).hexdigest() == manifest["state"]
        if sound and [*identity(ram), host.boot_id] != manifest["identity"]:
            sound = rehash(ram) == manifest["ram"]
            if sound:
                write_manifest(folder, manifest | {"identity": [*identity(ram), host.boot_id]})
        if sound:
            os.utime(folder / "manifest.json")
            base = BaseVm(folder, ram, state, bytes.fromhex(manifest["sentinel"]))
            ram = state = -1
            return base
        _log.warning("a base VM was damaged or written to, it is made again: %s", folder.name)
    except FileNotFoundError:
        if not folder.exists():
            return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("a base VM can't be read, it is made again: %s: %s", folder.name, error)
    finally:
        for fd in (ram, state):
            if fd >= 0:
                os.close(fd)
    discard(folder)
    return None


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Replace the manifest at once; what it says must be on disk already."""
    temporary = folder / f".manifest-{os.getpid()}"
    with temporary.open("w") as out:
        json.dump(manifest, out)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(folder / "manifest.json")


def discard(folder: Path) -> None:
    """Take a base VM away: first its name, so that no half of it is ever found. Forks of it run on."""
    gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}")
    with suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def collect(
    root: Path,
    *,
    keep: str,
    most: int = _MAX_BASES,
    most_bytes: int = _MAX_BYTES,
    usable: Callable[[Path], bool] | None = None,
) -> list[str]:
    """Remove what is not `usable` any more, then the least recently used beyond `most` and `most_bytes`; their keys.

    `keep` stays. What a dead builder left goes too: one that lives holds its key's lock.
    """
    found = []
    removed = []
    for path in root.iterdir():
        if path.name.startswith((".gone-", ".new-")):
            _sweep(root, path)
        elif path.is_dir():
            if path.name != keep and not (usable or _can_match)(path):
                discard(path)
                removed.append(path.name)
            else:
                found.append((path.name != keep, -_last_used(path), path, _disk_usage(path)))
    total = 0
    for number, (_, _, path, size) in enumerate(sorted(found), 1):
        total += size
        if path.name != keep and (number > most or total > most_bytes):
            discard(path)
            removed.append(path.name)
    return removed


def _sweep(root: Path, path: Path) -> None:
    key = path.name.split("-")[1]
    with (root / f"{key}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(path, ignore_errors=True)


def _can_match(path: Path) -> bool:
    """False where it was made by code of another format, or by a QEMU that is not at its place any more."""
    try:
        inputs = json.loads(_read_manifest(path)["inputs"])
        program, _, made_by = inputs["qemu"]
        return bool(inputs["format"] == _FORMAT and made_by == HostCapabilities.identity_of(program))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read_manifest(folder: Path) -> dict[str, Any]:
    with (folder / "manifest.json").open("rb") as file:
        manifest = json.loads(file.read(_MAX_MANIFEST))
    return dict(manifest)


def _last_used(path: Path) -> int:
    try:
        return (path / "manifest.json").stat().st_mtime_ns
    except OSError:
        return 0


def _disk_usage(path: Path) -> int:
    try:
        return sum(file.stat().st_blocks * 512 for file in path.iterdir())
    except OSError:
        return 0
