"""Boot assets: made once, found again without reading the inputs, made anew when one changes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.errors import BootError
from firkin.types.state import StateDirs
from firkin.vmm import assets
from firkin.vmm.assets import GUEST_FILES, resolve_assets
from firkin.vmm.kernel import KernelImage
from tests.vmm.test_kernel import VMLINUX
from tests.vmm.test_modules import tree


class Counting:
    """sha256, and how often it was asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, data: bytes) -> hashlib._Hash:
        self.calls += 1
        return hashlib.sha256(data)


@pytest.fixture
def kernel(tmp_path: Path) -> KernelImage:
    (tmp_path / "vmlinux").write_bytes(VMLINUX)
    return KernelImage.from_file(tmp_path / "vmlinux", tree(tmp_path, dep=False))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "guest"
    folder.mkdir()
    for name in GUEST_FILES:
        (folder / name).write_bytes(b"\x7fELF " + name.encode())
    return {"FIRKIN_GUEST_DIR": str(folder)}


@pytest.fixture
def dirs(tmp_path: Path) -> StateDirs:
    return StateDirs.under(tmp_path / "home")


def test_repeated_resolve_does_not_hash_again(dirs: StateDirs, kernel: KernelImage, environ: dict[str, str]) -> None:
    hasher = Counting()
    first = resolve_assets(dirs, kernel, environ=environ, hasher=hasher)
    assert hasher.calls == 2
    assert resolve_assets(dirs, kernel, environ=environ, hasher=hasher) == first
    assert hasher.calls == 2


def test_another_process_does_not_hash_either(dirs: StateDirs, kernel: KernelImage, environ: dict[str, str]) -> None:
    first = resolve_assets(dirs, kernel, environ=environ)
    code = f"""if True:
        from pathlib import Path
        from firkin.types.state import StateDirs
        from firkin.vmm.assets import resolve_assets
        from firkin.vmm.kernel import KernelImage
        def refuse(data): raise SystemExit("hashed again")
        kernel = KernelImage(Path({str(kernel.path)!r}), Path({str(kernel.modules)!r}))
        found = resolve_assets(StateDirs.under(Path({str(dirs.cache.parent)!r})), kernel, hasher=refuse)
        print(found.initramfs_digest, end="")
    """
    again = subprocess.run([sys.executable, "-c", code], env=os.environ | environ, capture_output=True, text=True)
    assert again.stdout == first.initramfs_digest, again.stderr


def test_the_name_is_the_content(dirs: StateDirs, kernel: KernelImage, environ: dict[str, str]) -> None:
    found = resolve_assets(dirs, kernel, environ=environ)
    for path, digest in ((found.vmlinux, found.kernel_digest), (found.initramfs, found.initramfs_digest)):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        assert path.name.endswith(digest)
        assert path.stat().st_mode & 0o777 == 0o444


def test_a_changed_guest_makes_another_initramfs(dirs: StateDirs, kernel: KernelImage, environ: dict[str, str]) -> None:
    first = resolve_assets(dirs, kernel, environ=environ)
    (Path(environ["FIRKIN_GUEST_DIR"]) / "vminitd").write_bytes(b"\x7fELF another")
    second = resolve_assets(dirs, kernel, environ=environ)
    assert second.initramfs_digest != first.initramfs_digest
    assert second.kernel_digest == first.kernel_digest


def test_what_was_removed_is_made_again(dirs: StateDirs, kernel: KernelImage, environ: dict[str, str]) -> None:
    first = resolve_assets(dirs, kernel, environ=environ)
    first.initramfs.unlink()
    assert resolve_assets(dirs, kernel, environ=environ).initramfs.exists()


def test_no_guest_says_what_to_do(dirs: StateDirs, kernel: KernelImage, tmp_path: Path) -> None:
    with pytest.raises(BootError, match=r"launch is not at .*build_guest"):
        resolve_assets(dirs, kernel, environ={"FIRKIN_GUEST_DIR": str(tmp_path)})


def test_killed_before_publishing_leaves_a_cache_that_works(
    dirs: StateDirs, kernel: KernelImage, environ: dict[str, str]
) -> None:
    code = f"""if True:
        from pathlib import Path
        from firkin.types.state import StateDirs
        from firkin.vmm.assets import resolve_assets
        from firkin.vmm.kernel import KernelImage
        kernel = KernelImage(Path({str(kernel.path)!r}), Path({str(kernel.modules)!r}))
        resolve_assets(StateDirs.under(Path({str(dirs.cache.parent)!r})), kernel)
    """
    point = "assets.before-publish"
    armed = os.environ | environ | {"FIRKIN_FAULT": f"{point}=kill"}
    assert subprocess.run([sys.executable, "-c", code], env=armed).returncode == -signal.SIGKILL
    assert not list(dirs.cache.glob("assets/vmlinux-*"))
    found = resolve_assets(dirs, kernel, environ=environ)
    assert found.vmlinux.read_bytes() == VMLINUX
    assert not list(dirs.cache.glob("assets/.new-*"))
    assert assets.guest_folder(environ).name == "guest"
