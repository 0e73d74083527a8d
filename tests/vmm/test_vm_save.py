"""Running VMs saved and restored: all of one instant, any number of times, whatever they were made of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firkin.errors import AgentError, StateError, VirtualMachineError
from firkin.ext4 import make_empty
from firkin.vmm import Disk, VirtualMachine, VmConfig
from firkin.vmm.ramfile import digest
from firkin.vmm.save import SaveReport, open_memory, save
from firkin.vmm.saved import MAX_LAYERS, Saved, open_saved

pytestmark = pytest.mark.vm

SMALL = VmConfig(cpus=1, memory=256 << 20)


@pytest.fixture
def config(tmp_path: Path) -> VmConfig:
    make_empty(tmp_path / "image", 32 << 20)
    return replace(SMALL, disks=(Disk(tmp_path / "image"),))


@pytest.fixture
async def vm(config: VmConfig) -> AsyncIterator[VirtualMachine]:
    async with await VirtualMachine.start(config) as vm:
        await _ready(vm)
        yield vm


async def _ready(vm: VirtualMachine) -> None:
    await vm.agent.call(vm.resume_message())
    await vm.agent.mount("ext4", "/dev/vda", "/disk", mkdir=True)


async def _save(vm: VirtualMachine, folder: Path, **options: object) -> SaveReport:
    folder.mkdir()
    await vm.agent.quiesce()
    return await save(vm, folder, {}, **options)  # type: ignore[arg-type]


def _open(folder: Path, vm: VirtualMachine) -> Saved:
    return open_saved(folder, boot_id=vm.host.boot_id, what=folder.name)


async def _restore(saved: Saved, config: VmConfig, *, copy: bool = False) -> VirtualMachine:
    vm = await VirtualMachine.restore(replace(config, disks=saved.disks(copy=copy)), saved)
    await vm.agent.call(vm.resume_message(epoch=saved.epoch + 1))
    return vm


async def _has(vm: VirtualMachine, path: str) -> bool:
    try:
        await vm.agent.stat(path)
    except AgentError:
        return False
    return True


async def _put(vm: VirtualMachine, *paths: str) -> None:
    for path in paths:
        await vm.agent.write_file(path, path.encode() * 1000, create_parents=True)


async def test_clones_go_on_from_one_instant_and_apart(vm: VirtualMachine, config: VmConfig, tmp_path: Path) -> None:
    await _put(vm, "/run/memory", "/disk/file")
    before = digest(vm.ram)
    report = await _save(vm, tmp_path / "saved")
    assert vm.running
    assert [(disk.file, disk.method in ("clone", "copy")) for disk in report.disks] == [
        ("disk0.raw", True),
        ("disk0-0.qcow2", True),
    ]
    assert 0 < report.paused < report.seconds
    # What its clones are made of is the instant of the save, not what the source does later.
    await vm.agent.call(vm.resume_message())
    await _put(vm, "/run/later", "/disk/later")
    with _open(tmp_path / "saved", vm) as saved:
        ram = digest(saved.files["ram"])
        async with await _restore(saved, config) as one, await _restore(saved, config, copy=True) as two:
            for clone in (one, two):
                assert (await clone.agent.info()).epoch == 2
                assert await _has(clone, "/run/memory")
                assert await _has(clone, "/disk/file")
                assert not await _has(clone, "/run/later")
                assert not await _has(clone, "/disk/later")
            await _put(one, "/disk/own", "/run/own")
            assert not await _has(two, "/disk/own")
            assert not await _has(two, "/run/own")
        assert digest(saved.files["ram"]) == ram
    assert digest(vm.ram) == before
    assert await _has(vm, "/disk/later")


async def test_a_clone_is_saved_again_and_again(vm: VirtualMachine, config: VmConfig, tmp_path: Path) -> None:
    await _put(vm, "/disk/0")
    await _save(vm, tmp_path / "0")
    for number in range(1, MAX_LAYERS + 3):
        with _open(tmp_path / str(number - 1), vm) as saved:
            # Even where what it came from was removed meanwhile.
            if number == 2:
                (tmp_path / "0" / "disk0-0.qcow2").unlink()
            async with await _restore(saved, config) as clone:
                assert all([await _has(clone, f"/disk/{older}") for older in range(number)])
                await _put(clone, f"/disk/{number}")
                report = await _save(clone, tmp_path / str(number))
                assert report.disks[0].method == "link"
    with _open(tmp_path / str(number), vm) as saved:
        assert len(saved.saved_disks[0].layers) == MAX_LAYERS


def _hardened(pid: int) -> int:
    raise PermissionError(pid)


async def test_qemu_writes_its_memory_out_where_it_can_not_be_read(
    vm: VirtualMachine, config: VmConfig, tmp_path: Path
) -> None:
    await _put(vm, "/run/memory")
    report = await _save(vm, tmp_path / "saved", memory=_hardened)
    assert report.ram_bytes > 30 << 20
    assert not (vm.folder.path / "dump").exists()
    with _open(tmp_path / "saved", vm) as saved:
        async with await _restore(saved, config) as clone:
            assert await _has(clone, "/run/memory")


async def test_both_ways_read_the_same_memory(vm: VirtualMachine, tmp_path: Path) -> None:
    await vm.agent.quiesce()
    await vm.pause()
    contents = []
    for number, memory in enumerate((open_memory, _hardened)):
        folder = tmp_path / f"saved-{number}"
        folder.mkdir()
        await save(vm, folder, {}, memory=memory, go_on=False)
        contents.append((folder / "ram").read_bytes())
    one, other = contents
    differing = [at for at in range(0, len(one), 4096) if one[at : at + 4096] != other[at : at + 4096]]
    # The guest sees its firmware's ROM there, and so does QEMU's command; the RAM below is nobody's.
    assert [hex(at) for at in differing if not 0xE0000 <= at < 0x100000] == []


async def test_a_vm_that_booted_is_saved_too(config: VmConfig, tmp_path: Path) -> None:
    async with await VirtualMachine.start(config, fork=False) as vm:
        assert vm.ram == -1
        await _ready(vm)
        await _put(vm, "/run/memory", "/disk/file")
        await _save(vm, tmp_path / "saved")
        with _open(tmp_path / "saved", vm) as saved:
            async with await _restore(saved, config) as clone:
                assert await _has(clone, "/run/memory")
                assert await _has(clone, "/disk/file")


async def test_disks_of_every_kind(config: VmConfig, tmp_path: Path) -> None:
    """An overlay, one that the guest writes itself, one that it only reads."""
    for name in ("own", "fixed"):
        make_empty(tmp_path / name, 32 << 20)
    own, fixed = Disk(tmp_path / "own", overlay=False), Disk(tmp_path / "fixed", read_only=True, immutable=True)
    config = replace(config, disks=(*config.disks, own, fixed))
    async with await VirtualMachine.start(config) as vm:
        await _ready(vm)
        await vm.agent.mount("ext4", "/dev/vdb", "/own", mkdir=True)
        await vm.agent.mount("ext4", "/dev/vdc", "/fixed", options=("ro",), mkdir=True)
        await _put(vm, "/own/file")
        report = await _save(vm, tmp_path / "saved")
        assert {disk.file: disk.method for disk in report.disks}["disk2.raw"] == "link"
        await vm.agent.call(vm.resume_message())
        with _open(tmp_path / "saved", vm) as saved:
            async with await _restore(saved, config) as one, await _restore(saved, config) as two:
                await _put(one, "/own/more")
                assert await _has(one, "/own/file")
                assert not await _has(two, "/own/more")
        # The source's own disk is the source's alone.
        assert not await _has(vm, "/own/more")


async def test_a_save_that_fails_leaves_the_vm_running(vm: VirtualMachine, tmp_path: Path) -> None:
    def broken(pid: int) -> int:
        raise OSError(5, "no memory to be had")

    with pytest.raises(OSError, match="no memory to be had"):
        await _save(vm, tmp_path / "saved", memory=broken)
    await vm.agent.call(vm.resume_message())
    assert not await _has(vm, "/run/nothing")


async def test_a_state_that_qemu_refuses_is_an_error_not_a_boot(
    vm: VirtualMachine, config: VmConfig, tmp_path: Path
) -> None:
    await _save(vm, tmp_path / "saved", lasting=False)
    with _open(tmp_path / "saved", vm) as saved:
        saved.path("state").chmod(0o600)
        with saved.path("state").open("r+b") as state:
            state.truncate(5000)
        with pytest.raises(VirtualMachineError, match="QEMU"):
            await _restore(saved, config)


SAVE = """if True:
    import asyncio, sys
    from pathlib import Path
    from firkin.vmm import VirtualMachine, VmConfig
    from firkin.vmm.save import save
    async def main():
        async with await VirtualMachine.start(VmConfig(cpus=1, memory=256 << 20)) as vm:
            await vm.agent.call(vm.resume_message())
            await vm.agent.quiesce()
            await save(vm, Path(sys.argv[1]), {})
    asyncio.run(main())
"""


@pytest.mark.parametrize("point", ["save.stopped", "save.written"])
def test_a_torn_save_is_never_believed(point: str, tmp_path: Path, check_nothing_is_left: Callable[[], None]) -> None:
    environ = os.environ | {"FIRKIN_FAULT": f"{point}=kill"}
    done = subprocess.run([sys.executable, "-c", SAVE, tmp_path], env=environ, timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    check_nothing_is_left()
    with pytest.raises(StateError, match=r"manifest\.json is missing"):
        open_saved(tmp_path, boot_id="", what="it")
