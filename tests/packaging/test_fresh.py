"""What a new user does: install the wheel into an empty environment, `firkin setup`, a first run; in a fresh Debian.

The Debian is a tar (`tools/freshroot.sh`) unpacked for this test. Nothing of this machine is mounted in it: its file
system is the folder, its processes are a namespace's. What pip and apt need to reach their registries is copied in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT

pytestmark = [pytest.mark.vm, pytest.mark.needs_tool("mmdebstrap"), pytest.mark.timeout(900)]

USER = 4242
# Ways to the registries: what names them, and the certificates that vouch for them.
COPIED = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SETTINGS = re.compile(r"PIP_INDEX_URL|PIP_EXTRA_INDEX_URL|PIP_TRUSTED_HOST|[a-z]+_proxy", re.IGNORECASE)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The folder of a fresh Debian, with the wheel in the home of its user."""
    built = subprocess.run(["tools/freshroot.sh"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    root = tmp_path_factory.mktemp("fresh") / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", str(ROOT / built.stdout.strip()), "-C", str(root)], check=True)
    for name in COPIED:
        if Path(name).is_file():
            shutil.copy(name, root / name[1:])
    for file in Path("/etc/apt/apt.conf.d").glob("*"):
        if "Acquire::" in file.read_text(errors="replace"):
            shutil.copy(file, root / "etc/apt/apt.conf.d")
    shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    home = root / "home/user"
    home.mkdir(parents=True)
    shutil.copy(wheel, home)
    os.chown(home, USER, USER)
    return root


def inside(root: Path, script: str, *, user: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a shell script in the Debian, as its user or as its root; its output, both streams together."""
    environ = {name: value for name, value in os.environ.items() if SETTINGS.fullmatch(name)}
    environ |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/home/user" if user else "/root", "LC_ALL": "C.UTF-8"}
    environ |= {"PIP_CERT": str(CERTIFICATES), "SSL_CERT_FILE": str(CERTIFICATES)}
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--root={root}", "--mount-proc"]
    if user:
        command += ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
    command += ["sh", "-euc", f"cd; {script}"]
    return subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def test_wheel_setup_first_run(fresh: Path) -> None:
    none = inside(fresh, "! command -v cargo && ! command -v gcc && ! ls /boot/vmlinuz* /usr/local/share/firkin")
    assert none.returncode == 0, none.stdout
    installed = inside(fresh, "python3 -m venv env && env/bin/pip install --quiet *.whl && env/bin/firkin version")
    assert (installed.returncode, installed.stdout.split()[0]) == (0, "firkin"), installed.stdout

    # apt's lists come with `apt-get update`, which is root's: without them setup says so.
    told = inside(fresh, "env/bin/firkin setup")
    assert told.returncode == 125, told.stdout
    assert "apt does not know linux-image-cloud-" in told.stdout
    assert "as root: apt-get update" in told.stdout
    updated = inside(fresh, "apt-get -qq update", user=False)
    assert updated.returncode == 0, updated.stdout
    done = inside(fresh, "env/bin/firkin setup")
    assert done.returncode == 0, done.stdout
    assert "downloading linux-image-6.1" in done.stdout
    assert "ready: firkin run --rm busybox echo hello" in done.stdout
    assert "broken" not in done.stdout

    hello = inside(fresh, "env/bin/firkin run --rm busybox sh -c 'echo hello from $(uname -r)'")
    assert hello.returncode == 0, hello.stdout
    assert re.search(r"^hello from 6\.1\S*-cloud-", hello.stdout, re.MULTILINE)
    left = inside(fresh, "env/bin/firkin ps -q; find /tmp/firkin-* -name '*.sock'")
    assert (left.returncode, left.stdout) == (0, "")
