"""Getting a kernel for guests without being root: this machine's own, Debian's by apt, or one in a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from firkin.errors import BootError, InvalidInputError
from firkin.types import Platform, StateDirs
from firkin.vmm.assets import resolve_assets
from firkin.vmm.host import HostCapabilities, probe
from firkin.vmm.kernel import KernelImage, find_kernel
from firkin.vmm.kernel_package import keep_file, unpack_package

__all__ = ["get_kernel", "make_ready"]

_DOWNLOAD_LIMIT = 600
Say = Callable[[str], None]


def get_kernel(dirs: StateDirs, say: Say, *, file: Path | None = None, fetch: bool = False) -> KernelImage:
    """The kernel that guests boot, fetched where there is none, or with `fetch`; `file` is one, or a `.deb`, to take.

    `say` is told what is done. Raises `BootError` that says what is missing and how to get it.
    """
    if file is not None:
        return _from_file(dirs, file, say)
    if not fetch:
        try:
            return find_kernel(dirs)
        except BootError:
            say("no kernel for guests is here: fetching Debian's")
    return _from_apt(dirs, say)


def make_ready(dirs: StateDirs, kernel: KernelImage) -> HostCapabilities:
    """Make what every start needs of `kernel`, and find the accelerator: the first start has it then."""
    return probe(dirs, resolve_assets(dirs, kernel))


def _from_file(dirs: StateDirs, file: Path, say: Say) -> KernelImage:
    if not file.is_file():
        raise InvalidInputError(f"there is no file {file}", value=file, hint="name a kernel, or a linux-image-….deb")
    if file.suffix == ".deb":
        folder = unpack_package(file, dirs)
    else:
        kernel = KernelImage.from_file(file)
        folder = keep_file(kernel.path, kernel.modules, dirs)
    say(f"unpacked to {folder}")
    return _in(folder)


def _in(folder: Path) -> KernelImage:
    return KernelImage(folder / "boot" / f"vmlinuz-{folder.name}", folder / "lib/modules" / folder.name)


def _from_apt(dirs: StateDirs, say: Say) -> KernelImage:
    meta = f"linux-image-cloud-{Platform.current().architecture}"
    by_hand = f"download {meta}'s package from a Debian mirror, then: firkin setup --kernel FILE.deb"
    if shutil.which("apt-get") is None or shutil.which("apt-cache") is None:
        raise BootError("there is no kernel for guests, and no apt to fetch one", hint=by_hand)
    package = _package(meta)
    if not package and os.geteuid() == 0:
        say("apt-get update")
        _run(["apt-get", "-qq", "update"], "apt-get update failed", by_hand)
        package = _package(meta)
    if not package:
        raise BootError(
            f"apt does not know {meta}",
            hint=f"as root: apt-get update; where that does not help, {by_hand}",
        )
    say(f"downloading {package}")
    with tempfile.TemporaryDirectory(prefix="firkin-kernel-") as name:
        # As root apt would download as a user who can't write there.
        command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
        _run(command, f"can't download {package}", by_hand, cwd=name)
        packages = list(Path(name).glob("*.deb"))
        if len(packages) != 1:
            raise BootError(f"apt-get download gave no package of {package}", hint=by_hand)
        folder = unpack_package(packages[0], dirs)
    say(f"unpacked to {folder}")
    return _in(folder)


def _package(meta: str) -> str:
    """The kernel's package that Debian's `meta` depends on; empty where apt knows none."""
    said = subprocess.run(["apt-cache", "depends", meta], capture_output=True, text=True, timeout=60, check=False)
    depends = (line.strip().removeprefix("Depends: ") for line in said.stdout.splitlines())
    return next((name for name in depends if name.startswith("linux-image-") and name != meta), "")


def _run(command: list[str], failure: str, hint: str, *, cwd: str | None = None) -> None:
    try:
        subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DOWNLOAD_LIMIT, check=True
        )
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode("utf-8", "replace").strip().splitlines()
        raise BootError(f"{failure}{f': {words[-1]}' if words else ''}", hint=hint) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BootError(f"{failure}: {error}", hint=hint) from error
