"""Where vmexec is, and a root of busybox to run in."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.vmexec.driver import Vmexec

ROOT = Path(__file__).resolve().parents[2]
BUSYBOX = Path("/bin/busybox")


@pytest.fixture(scope="session")
def vmexec() -> Vmexec:
    """The binary that the build put in place, or the one in FIRKIN_GUEST_DIR."""
    folder = os.environ.get("FIRKIN_GUEST_DIR") or ROOT / "src" / "firkin" / "_guest" / platform.machine()
    binary = Path(folder) / "vmexec"
    if not binary.exists():
        pytest.fail(f"{binary} is not built (run tools/build_guest.py)", pytrace=False)
    return Vmexec(binary)


@pytest.fixture(scope="session")
def busybox_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with busybox's applets and a few users. Read only: see `root`."""
    if os.geteuid() != 0:
        pytest.fail("vmexec makes namespaces and mounts: run its tests as root", pytrace=False)
    tree = tmp_path_factory.mktemp("busybox")
    for folder in ("bin", "etc", "tmp", "home/ann", "root"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(BUSYBOX, tree / "bin" / "busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nusers:x:100:\naudio:x:29:ann\nvideo:x:44:\n")
    return tree


@pytest.fixture
def root(busybox_tree: Path, tmp_path: Path) -> Path:
    """A root folder of the test's own."""
    root = Path(shutil.copytree(busybox_tree, tmp_path / "root", symlinks=True))
    # pytest's folders are closed to others, and users of containers are others.
    for folder in (root, *root.parents):
        if folder.is_relative_to(tmp_path.parent.parent):
            folder.chmod(0o755)
    return root
