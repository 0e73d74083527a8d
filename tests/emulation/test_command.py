"""`firkin run` of another architecture's image, as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.oci import Image

FIRKIN = (sys.executable, "-c", "from firkin.cli import main; main()")
UNAME = ("localhost/busybox-arm64", "/bin/busybox", "uname", "-m")


def firkin(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FIRKIN, *args], env={**os.environ, **env}, text=True, capture_output=True, timeout=120, check=False
    )


@pytest.mark.vm
@pytest.mark.needs_tool("qemu-aarch64-static")
def test_it_runs_and_one_line_says_how(home: Path, busybox_arm64_image: Image) -> None:
    done = firkin("run", *UNAME)
    assert (done.stdout, done.returncode) == ("aarch64\n", 0)
    assert done.stderr == (
        "firkin: localhost/busybox-arm64:latest is for linux/arm64, this host is linux/amd64: it runs by emulation\n"
    )
    asked = firkin("run", "--emulate", "--platform", "arm64", *UNAME)
    assert (asked.stdout, asked.stderr, asked.returncode) == ("aarch64\n", "", 0)


def test_without_an_emulator_one_line_says_what_to_install(
    home: Path, busybox_arm64_image: Image, tmp_path: Path
) -> None:
    done = firkin("run", *UNAME, PATH=str(tmp_path))
    assert (done.stdout, done.returncode) == ("", 125)
    assert done.stderr == (
        "firkin: there is no emulator for arm64: qemu-aarch64-static is missing (apt install qemu-user-static)\n"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--no-emulate",), "the image is for linux/arm64, this host is linux/amd64"),
        (("--platform", "plan9/arm64"), "plan9"),
        (("--pull", "sometimes"), "--pull"),
        (("--platform", "s390x", "--pull", "never"), "not for linux/s390x"),
    ],
)
def test_what_can_not_be_is_one_line(home: Path, busybox_arm64_image: Image, flags: tuple[str, ...], said: str) -> None:
    done = firkin("run", *flags, *UNAME)
    assert (done.stdout, done.returncode, done.stderr.count("\n")) == ("", 125, 1)
    assert said in done.stderr


def test_a_name_that_is_nowhere_is_one_line_without_asking_a_registry(home: Path) -> None:
    done = firkin("run", "--pull", "never", "no-such-image", "true")
    assert (done.stdout, done.returncode) == ("", 125)
    assert (
        done.stderr == "firkin: no image no-such-image:latest in the store (firkin image pull, or firkin image load)\n"
    )
