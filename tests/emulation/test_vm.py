"""A container of another architecture in a real VM."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import firkin
from firkin.errors import ImageNotFoundError, InvalidInputError
from firkin.oci import Image
from firkin.types import Stdio

pytestmark = [pytest.mark.vm, pytest.mark.needs_tool("qemu-aarch64-static")]
SHELL = ("/bin/busybox", "sh", "-c")


@pytest.fixture(scope="module")
def arm(busybox_arm64_image: Image) -> Iterator[firkin.Container]:
    with firkin.Container.launch("localhost/busybox-arm64", ["/bin/busybox", "sleep", "600"]) as container:
        yield container


def test_an_arm64_program_runs_and_says_so_once(busybox_arm64_image: Image, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "firkin"):
        result = firkin.run("localhost/busybox-arm64", ["/bin/busybox", "uname", "-m"], text=True)
    assert (result.stdout, result.returncode) == ("aarch64\n", 0)
    said = [record.getMessage() for record in caplog.records if "emulation" in record.getMessage()]
    assert said == ["localhost/busybox-arm64:latest is for linux/arm64, this host is linux/amd64: it runs by emulation"]


def test_further_processes_and_their_children_are_emulated_too(arm: firkin.Container) -> None:
    # A symlink's name is argv[0], which busybox goes by.
    script = "/bin/busybox uname -m; /bin/busybox ln -s /bin/busybox /tmp/uname; /tmp/uname -m"
    assert arm.run([*SHELL, script], text=True).stdout == "aarch64\n" * 2


def test_exit_codes_signals_and_streams_pass_through(arm: firkin.Container) -> None:
    assert arm.run([*SHELL, "exit 42"]).returncode == 42
    assert arm.run([*SHELL, "kill -9 $$"]).status.shell_code == 137
    assert arm.run(["/bin/busybox", "cat"], input=b"\x00\xff" * 50_000).stdout == b"\x00\xff" * 50_000


def test_the_container_sees_neither_the_emulator_nor_its_disk(arm: firkin.Container) -> None:
    assert arm.run(["/bin/busybox", "ls", "/run"], text=True).returncode == 1
    mounts = arm.run(["/bin/busybox", "cat", "/proc/mounts"], text=True).stdout
    assert isinstance(mounts, str)
    assert "emulator" not in mounts
    assert "binfmt" not in mounts


def test_an_image_of_this_host_can_have_the_emulator_too(
    busybox_image: Image, busybox_arm64_image: Image, caplog: pytest.LogCaptureFixture
) -> None:
    with firkin.Container.launch("busybox", ["sleep", "600"], emulate=True, stdout=Stdio.NULL) as box:
        assert box.run(["uname", "-m"], text=True).stdout == "x86_64\n"
    assert not [record for record in caplog.records if "emulation" in record.getMessage()]


def test_what_is_not_wanted_is_refused_before_any_vm(busybox_arm64_image: Image) -> None:
    with pytest.raises(InvalidInputError, match="the image is for linux/arm64, this host is linux/amd64"):
        firkin.run("localhost/busybox-arm64", ["/bin/busybox", "true"], emulate=False)
    with pytest.raises(ImageNotFoundError, match="linux/s390x"):
        firkin.run("localhost/busybox-arm64", ["/bin/busybox", "true"], platform="linux/s390x")
    with pytest.raises(InvalidInputError, match="no policy"):
        firkin.run("busybox", ["true"], pull="sometimes")  # type: ignore[arg-type]
