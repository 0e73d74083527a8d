"""Nothing needs root at run time: the main job as a user without any right, beside root's."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
from pathlib import Path

import pytest

import firkin
from firkin.oci import Image

pytestmark = [pytest.mark.vm, pytest.mark.needs_tool("setpriv")]

UID = 424242
# What a run imports, beside Firkin itself.
PACKAGES = ("click", "google", "isal", "lz4", "qemu", "zstandard")
# Debian's own: the one of the virtual environment may be in a folder that only root can enter.
PYTHON = "/usr/bin/python3"


@pytest.fixture
def readable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that everybody can read, with Firkin and what it imports."""
    folder = tmp_path_factory.mktemp("unprivileged")
    packages = Path(next(path for path in site.getsitepackages() if (Path(path) / "click").is_dir()))
    for name in PACKAGES:
        shutil.copytree(packages / name, folder / name)
    shutil.copytree(Path(firkin.__file__).parent, folder / "firkin")
    for path in (folder, *folder.parents):
        path.chmod(path.stat().st_mode | 0o055)
        if path.name.startswith("fkt-"):
            # The scratch folder of the whole run, see conftest.py.
            break
    return folder


def test_the_main_job_as_a_user_beside_root(readable: Path, busybox_image: Image) -> None:
    own = readable / "home"
    shared = own / "shared"
    shared.mkdir(parents=True)
    (shared / "mine").write_text("a file of the user's\n")
    for path in (own, shared, shared / "mine"):
        os.chown(path, UID, UID)
    command = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--no-new-privs", PYTHON, "-c"]
    command += ["from firkin.cli import main; main()", "run", "-i", "-v", f"{shared}:/s"]
    # With a single id in its user namespace the user is root of what is shared, and what root makes is the user's.
    command += ["busybox", "sh", "-c", "id -u; stat -c %u /s/mine; cp /s/mine /s/made; cat"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(own), "PYTHONPATH": str(readable), "FIRKIN_HOME": str(own)}
    if "FIRKIN_KERNEL_DIR" in os.environ:
        environ["FIRKIN_KERNEL_DIR"] = os.environ["FIRKIN_KERNEL_DIR"]
    with firkin.Container.launch("busybox", ["sleep", "600"]) as roots:
        done = subprocess.run(command, env=environ, input="hello\n", text=True, capture_output=True, timeout=240)
        assert (done.stdout, done.returncode) == ("0\n0\nhello\n", 0), done.stderr
        assert roots.run(["echo", "still here"]).stdout == b"still here\n"
    assert list((own / "run" / "vm").glob("[!.]*")) == []
    assert (own / "cache").stat().st_uid == UID
    assert ((shared / "made").read_text(), (shared / "made").stat().st_uid) == ("a file of the user's\n", UID)
