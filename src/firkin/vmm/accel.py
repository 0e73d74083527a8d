"""Trying whether a guest boots: under KVM, for a /dev/kvm can exist and still not run one."""

from __future__ import annotations

import fcntl
import logging
import os
import select
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from firkin.errors import BootError
from firkin.vmm.argv import kernel_arguments, machine_type, program_arguments
from firkin.vmm.assets import BootAssets
from firkin.vmm.config import VmConfig
from firkin.vmm.host import HostCapabilities, Verdict
from firkin.vmm.spawn import Identity, spawn

__all__ = ["boots", "judge"]

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
        refusal = _refusal(host, device) or boots(replace(host, accelerator="kvm"), assets, limit)
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


def boots(host: HostCapabilities, assets: BootAssets, limit: float) -> str | None:
    """Boot a bare kernel on `host`, for at most `limit` seconds: None where it came up, else what was seen instead."""
    ours, theirs = socket.socketpair()
    with ours, theirs, assets.vmlinux.open("rb") as kernel, tempfile.TemporaryFile() as said:
        fds = (theirs.fileno(), kernel.fileno())
        argv = _argv(host, *fds)
        groups = (host.kvm_group,) if host.kvm_group >= 0 else ()
        identity = Identity(host.uid_base if host.uid_count else None, groups)
        child = spawn(argv, identity=identity, fds=fds, stderr=said, lean=host.lean)
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
    config = VmConfig(cpus=1, memory=160 << 20)
    cpu = "host" if host.accelerator == "kvm" else host.cpu_model()
    argv = [*program_arguments(host, "trial"), "-machine", machine_type(config, host), "-m", "160"]
    argv += ["-accel", host.accelerator, "-cpu", cpu, "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]
    argv += ["-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"]
    return [*argv, "-kernel", f"/proc/self/fd/{kernel}", "-append", kernel_arguments(config, host)]


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
