"""Cold boots of real VMs: up, spoken to, paused, stopped, killed; what fails does so at once and says why."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firkin.errors import BootError, InvalidInputError, LinkError, StateError, VirtualMachineError
from firkin.ext4 import ImageReader, make_empty
from firkin.types.state import StateDirs
from firkin.vmm import BootLog, Disk, VirtualMachine, VmConfig, live

pytestmark = pytest.mark.vm

SMALL = VmConfig(cpus=1, memory=256 << 20)


async def boot(config: VmConfig = SMALL, name: str | None = None) -> VirtualMachine:
    return await VirtualMachine.start(config, name=name, fork=False)


@pytest.fixture
async def vm() -> AsyncIterator[VirtualMachine]:
    async with await boot() as vm:
        yield vm


@pytest.mark.parametrize("boots", [10, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])
async def test_every_cold_boot_comes_up(boots: int) -> None:
    for _ in range(boots):
        async with await boot() as vm:
            assert not vm.forked
            assert list(vm.timings.phases) == ["prepare", "spawn", "boot"]
            assert "vminitd: ready" in vm.boot_log_tail()


async def test_it_is_spoken_to_paused_and_stopped(tmp_path: Path) -> None:
    log = tmp_path / "boot.log"
    vm = await VirtualMachine.start(
        VmConfig(cpus=2, memory=256 << 20, boot_log=BootLog.file(log), cmdline_extra="firkin.example=1"), fork=False
    )
    async with vm:
        await vm.agent.call(vm.resume_message())
        before = time.time_ns()
        info = await vm.agent.info()
        after = time.time_ns()
        assert before - 50_000_000 <= info.realtime_ns <= after + 50_000_000
        assert info.kernel_release.startswith("6.1.")
        await vm.pause()
        assert await vm.qmp("query-status") == {"running": False, "singlestep": False, "status": "paused"}
        pending = vm.agent.info()
        await asyncio.sleep(0)
        assert not pending.done()
        await vm.resume()
        assert (await pending).kernel_release == info.kernel_release
        with pytest.raises(InvalidInputError, match="reserved"):
            await vm.dial(1024)
        with pytest.raises(InvalidInputError, match="reserved"):
            await vm.listen(0x1000_0000)
        with pytest.raises(VirtualMachineError, match="QEMU refused device_del"):
            await vm.qmp("device_del", id="nothing")
        began = time.monotonic()
        await vm.stop(grace=60)
        assert time.monotonic() - began < 30
        assert not vm.running
        assert not vm.folder.path.exists()
    assert "vminitd: ready" in log.read_text()


async def test_its_death_fails_what_is_under_way_at_once(vm: VirtualMachine) -> None:
    await vm.pause()
    pending = vm.agent.info()
    await asyncio.sleep(0)
    os.kill(vm.pid, 9)
    async with asyncio.timeout(10):
        with pytest.raises(LinkError) as caught:
            await pending
        await vm.wait_closed()
    assert caught.value.outcome_unknown
    assert "vminitd: ready" in caught.value.boot_log
    with pytest.raises(VirtualMachineError, match="was killed by SIGKILL"):
        await vm.qmp("query-status")


async def test_a_live_name_is_taken(vm: VirtualMachine) -> None:
    with pytest.raises(StateError, match=f"{vm.name} is in use"):
        await boot(name=vm.name)
    assert vm.folder.path in live(StateDirs.default())


async def test_qemu_runs_as_nobody_in_particular(vm: VirtualMachine) -> None:
    status = Path(f"/proc/{vm.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert fields["CapEff"] == "0" * 16
    assert len(set(fields["Uid"].split())) == 1
    assert os.geteuid() != 0 or fields["Uid"].split()[0] != "0"
    assert "FIRKIN" not in Path(f"/proc/{vm.pid}/environ").read_text()


async def test_disks_are_found_by_their_serial_and_written_as_asked(tmp_path: Path) -> None:
    images = [tmp_path / name for name in ("overlay", "fixed", "direct")]
    for image in images:
        make_empty(image, 64 << 20, journal=True)
    before = images[0].read_bytes()
    disks = (Disk(images[0]), Disk(images[1], read_only=True), Disk(images[2], overlay=False))
    vm = await VirtualMachine.start(VmConfig(cpus=1, memory=256 << 20, disks=disks), fork=False)
    async with vm:
        await vm.agent.call(vm.resume_message())
        for index, options in ((0, ()), (1, ("ro",)), (2, ())):
            await vm.agent.mount("ext4", f"serial:disk{index}", f"/run/{index}", options=options, mkdir=True)
        for index in (0, 2):
            await vm.agent.write_file(f"/run/{index}/file", b"written to %d" % index)
            await vm.agent.umount(f"/run/{index}")
        await vm.stop()
    assert images[0].read_bytes() == before
    with ImageReader(images[2]) as reader:
        assert reader.read("/file", 0, 100) == b"written to 2"
    checked = await asyncio.to_thread(subprocess.run, ["e2fsck", "-fn", images[2]], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert images[2].stat().st_size == 64 << 20


async def test_a_missing_disk_is_the_callers_mistake(tmp_path: Path) -> None:
    missing = VmConfig(cpus=1, memory=256 << 20, disks=(Disk(tmp_path / "absent"),))
    with pytest.raises(InvalidInputError, match="can't open the disk"):
        await boot(missing, "victim")
    assert not (StateDirs.default().run / "vm/victim").exists()


async def test_a_configuration_error_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BootError, match="unable to find CPU model 'Nonesuch'") as caught:
        await boot(VmConfig(cpus=1, memory=256 << 20, cpu_model="Nonesuch"))
    assert not caught.value.transient
    assert "trying again" not in caplog.text


async def test_a_guest_that_can_not_start_says_so_at_once() -> None:
    with pytest.raises(BootError, match="the guest's kernel panicked") as caught:
        await boot(VmConfig(cpus=1, memory=256 << 20, cmdline_extra="rdinit=/no/init root=/dev/none"))
    assert not caught.value.transient
    assert "Kernel panic" in caught.value.boot_log


async def test_a_cancelled_start_leaves_nothing() -> None:
    task = asyncio.create_task(boot(name="victim"))
    folder = StateDirs.default().run / "vm/victim"
    # At any moment of it: here while the kernel boots.
    await asyncio.wait({task}, timeout=1.0)
    assert folder.exists()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not folder.exists()
