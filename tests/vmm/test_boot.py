"""Which failures of a boot may pass, and what the others look like."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from firkin.errors import BootError, FirkinError, InvalidInputError, LinkError, VirtualMachineError
from firkin.vmm.boot import is_transient_boot_failure
from firkin.vmm.process import QemuProcess, tail
from firkin.vmm.spawn import spawn


def test_no_hello_within_the_limit_is_transient() -> None:
    assert is_transient_boot_failure(LinkError("guest link: no answer to the HELLO within 45 s"))


def test_a_counter_that_could_not_be_calibrated_is_transient() -> None:
    log = "tsc: Marking TSC unstable due to could not calculate TSC khz\n"
    assert is_transient_boot_failure(VirtualMachineError("the VM is gone", boot_log=log))


def test_a_shortage_that_passes_is_transient() -> None:
    why = "the VM is gone: QEMU exited with status 1: qemu: Failed to fork: Resource temporarily unavailable"
    assert is_transient_boot_failure(VirtualMachineError(why))
    assert is_transient_boot_failure(BootError("can't start qemu", transient=True))


@pytest.mark.parametrize(
    "error",
    [
        VirtualMachineError("the VM is gone: QEMU exited with status 1: Could not open '/dev/fdset/2': No such file"),
        VirtualMachineError("the VM is gone: QEMU exited with status 1: unable to find CPU model 'Nonesuch'"),
        VirtualMachineError("the VM is gone: the guest's kernel panicked: Attempted to kill init!"),
        BootError("there is no kernel to boot"),
        LinkError("guest link: the guest speaks protocol version 2, this side 1"),
        InvalidInputError("can't open the disk /x: No such file or directory"),
        InvalidInputError("Resource temporarily unavailable"),
    ],
    ids=lambda error: error.message[-30:],
)
def test_what_another_try_can_not_mend_is_not_transient(error: FirkinError) -> None:
    assert not is_transient_boot_failure(error)


def program(tmp_path: Path, script: str) -> QemuProcess:
    """A process with the files of a VM, that does what `script` (of sh) says."""
    said, console = tmp_path / "qemu.log", tmp_path / "boot.log"
    with said.open("wb") as stderr:
        return QemuProcess(spawn(["sh", "-c", script], stderr=stderr), said=said, console=console)


async def test_its_end_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "boot.log").write_text("[    0.1] hello\n")
    qemu = program(tmp_path, "echo warning >&2; echo no such CPU >&2; exit 3")
    assert await qemu.wait() == 3
    error = qemu.death()
    assert error.message == "the VM is gone: QEMU exited with status 3: no such CPU"
    assert error.boot_log == "[    0.1] hello\n"
    assert not qemu.running


async def test_a_panic_is_the_reason_where_there_was_one(tmp_path: Path) -> None:
    (tmp_path / "boot.log").write_text("[ 1.0] Kernel panic - not syncing: Attempted to kill init!\n[ 1.1] CPU: 1\n")
    qemu = program(tmp_path, "exit 0")
    await qemu.wait()
    assert qemu.death().message == "the VM is gone: the guest's kernel panicked: Attempted to kill init!"


async def test_what_waits_fails_when_it_ends(tmp_path: Path) -> None:
    qemu = program(tmp_path, "exec sleep 600")

    async def work() -> None:
        qemu.kill()
        await asyncio.Event().wait()

    with pytest.raises(VirtualMachineError, match="was killed by SIGKILL"):
        await qemu.or_death(work())


async def test_its_end_is_the_reason_of_what_fails_by_it(tmp_path: Path) -> None:
    qemu = program(tmp_path, "exec sleep 600")

    async def work() -> None:
        await qemu.end()
        raise LinkError("guest link: the other side closed it")

    with pytest.raises(VirtualMachineError, match="was killed by SIGKILL"):
        await qemu.or_death(work())


async def test_ending_it_twice_is_harmless(tmp_path: Path) -> None:
    qemu = program(tmp_path, "exec sleep 600")
    await qemu.end()
    await qemu.end()
    qemu.kill()
    assert await qemu.wait() == -9


def test_the_tail_of_a_log_is_bounded_and_always_text(tmp_path: Path) -> None:
    assert tail(tmp_path / "absent") == ""
    (tmp_path / "log").write_bytes(b"\xff" * 3 + b"x" * 10_000)
    assert tail(tmp_path / "log") == "x" * 4096
    subprocess.run(["truncate", "-s", "3", tmp_path / "log"], check=True)
    assert tail(tmp_path / "log") == "\ufffd" * 3
