"""Choosing the accelerator by trying: a /dev/kvm can exist and still not run a guest."""

from __future__ import annotations

import fcntl
import logging
import os
import select
import socket
import tempfile
import time
from pathlib import Path

from firkin.errors import BootError
from firkin.vmm.assets import BootAssets
from firkin.vmm.host import HostCapabilities, Verdict
from firkin.vmm.spawn import Identity, spawn

__all__ = ["judge"]

_log = logging.getLogger("firkin.vmm.accel")
_DEVICE = Path("/dev/kvm")
_LIMIT = 5.0
_MAX_CONSOLE = 1 << 20
# A kernel without a root file system ends here: everything before it worked.
_CAME_UP = b"Kernel panic - not syncing: VFS"


def judge(
    host: HostCapabilities,
    assets: BootAssets,
    accel: str,
    folder: Path,
    *,
    limit: float = _LIMIT,
    device: Path = _DEVICE,
) -> Verdict:
    """The accelerator for `accel` ("auto", "kvm", "tcg").

    A bare kernel is booted under KVM for at most `limit` seconds. Only one process tries at a time. Raises
    `BootError` where KVM was asked for by name and does not work.
    """
    if accel == "tcg":
        return Verdict("tcg", "software emulation was asked for")
    with (folder / ".trial").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refusal = _refusal(host, device) or _try_kvm(host, assets, limit)
    if refusal is None:
        return Verdict("kvm", "a guest booted under KVM")
    if accel == "kvm":
        raise BootError(f"KVM does not work here: {refusal}", hint="FIRKIN_ACCEL=tcg emulates in software")
    _log.warning("KVM is not usable (%s): VMs are emulated in software (TCG), several times slower", refusal)
    return Verdict("tcg", refusal)


def _refusal(host: HostCapabilities, device: Path) -> str | None:
    """Why KVM need not be tried at all."""
    if not device.exists():
        return f"there is no {device}"
    if os.geteuid() != 0 and not os.access(device, os.R_OK | os.W_OK):
        return f"this user may not open {device}; add it to the group kvm"
    if host.uid_count and host.kvm_group < 0 and device.stat().st_mode & 0o006 != 0o006:
        return f"{device} is root's alone, and QEMU does not run as root; give it to the group kvm"
    return None


def _try_kvm(host: HostCapabilities, assets: BootAssets, limit: float) -> str | None:
    """None where a kernel came up, else what was seen instead."""
    ours, theirs = socket.socketpair()
    with ours, theirs, assets.vmlinux.open("rb") as kernel, tempfile.TemporaryFile() as said:
        fds = (theirs.fileno(), kernel.fileno())
        argv = _argv(host, *fds)
        groups = (host.kvm_group,) if host.kvm_group >= 0 else ()
        identity = Identity(host.uid_base if host.uid_count else None, groups)
        child = spawn(argv, identity=identity, fds=fds, stderr=said)
        theirs.close()
        try:
            console = _read_until(ours, _CAME_UP, limit)
        finally:
            child.kill()
            child.wait()
        if _CAME_UP in console:
            return None
        said.seek(0)
        words = said.read(4096).decode("utf-8", "replace").strip().splitlines()
        if words:
            return f"QEMU said: {words[-1].partition(': ')[2] or words[-1]}"
        return f"a guest did not boot within {limit:g} s"


def _argv(host: HostCapabilities, console: int, kernel: int) -> list[str]:
    machine = "microvm,acpi=on,rtc=on" if host.machine == "microvm" else "virt,gic-version=max"
    port = "ttyS0" if host.arch == "x86_64" else "ttyAMA0"
    argv = [host.qemu, "-machine", machine, "-accel", "kvm", "-cpu", "host", "-m", "160"]
    argv += ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]
    argv += ["-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"]
    return [*argv, "-kernel", f"/proc/self/fd/{kernel}", "-append", f"console={port} reboot=t panic=-1"]


def _read_until(sock: socket.socket, word: bytes, limit: float) -> bytes:
    seen = b""
    end = time.monotonic() + limit
    while word not in seen and len(seen) < _MAX_CONSOLE and (left := end - time.monotonic()) > 0:
        if not select.select([sock], [], [], left)[0]:
            break
        if not (data := sock.recv(65536)):
            break
        seen += data
    return seen
