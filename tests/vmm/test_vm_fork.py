"""Base VMs for real: built once by whoever comes first, never torn, never written, and forks that share nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import firkin
from firkin.errors import LinkError, VirtualMachineError
from firkin.oci import Image
from firkin.types.state import StateDirs
from firkin.vmm import Disk, VirtualMachine, VmConfig
from firkin.vmm.argv import machine_type
from firkin.vmm.ramfile import digest
from tests.leftovers import belongs

pytestmark = pytest.mark.vm

SMALL = VmConfig(cpus=1, memory=256 << 20)
START = """if True:
    import asyncio, logging
    from firkin.vmm import VirtualMachine, VmConfig
    logging.basicConfig(level=logging.INFO)
    async def main():
        async with await VirtualMachine.start(VmConfig(cpus=1, memory=256 << 20)) as vm:
            print("forked" if vm.forked else "booted", flush=True)
    asyncio.run(main())
"""


@pytest.fixture
def empty_cache(fresh_home: Path, home: Path) -> StateDirs:
    """A home without base VMs; the boot assets are those that all tests share."""
    dirs = StateDirs.under(fresh_home)
    assets = StateDirs.under(home).make("cache", "assets")
    (dirs.make("cache") / "assets").symlink_to(assets.resolve())
    return dirs


def base(dirs: StateDirs) -> Path:
    """The only base VM there is."""
    (found,) = (path for path in (dirs.cache / "base").iterdir() if path.is_dir())
    return found


def ram_digest(folder: Path) -> str:
    fd = os.open(folder / "ram", os.O_RDONLY)
    try:
        return digest(fd)
    finally:
        os.close(fd)


def processes_of(dirs: StateDirs) -> list[int]:
    marks = (str(dirs.run.parent),)
    pids = [int(name.name) for name in Path("/proc").iterdir() if name.name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and belongs(pid, marks)]


def wait_until_gone(dirs: StateDirs) -> None:
    """What was killed needs a moment; nothing may need more."""
    limit = time.monotonic() + 10
    while left := processes_of(dirs):
        assert time.monotonic() < limit, left
        time.sleep(0.02)


def start(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START], env=os.environ | environ, capture_output=True, text=True, timeout=200
    )


BUILDING = ("folder.claimed", "base.locked", "base.booted", "base.saved", "base.before-publish", "base.published")
STARTING = ("boot.before-spawn", "boot.spawned", "boot.ready", "stop.before-end", "folder.removing")


@pytest.mark.timeout(600)
def test_killed_anywhere_nothing_is_left_and_the_next_start_works(empty_cache: StateDirs) -> None:
    for point in BUILDING:
        assert start(FIRKIN_FAULT=f"{point}=kill").returncode == -signal.SIGKILL, point
        wait_until_gone(empty_cache)
        published = [path.name for path in (empty_cache.cache / "base").glob("[!.]*/manifest.json")]
        assert len(published) == (point == "base.published")
    again = start()
    assert again.stdout == "forked\n", again.stderr
    whole = ram_digest(base(empty_cache))
    for point in STARTING:
        assert start(FIRKIN_FAULT=f"{point}=kill").returncode == -signal.SIGKILL, point
        wait_until_gone(empty_cache)
    assert start().stdout == "forked\n"
    assert ram_digest(base(empty_cache)) == whole
    assert list((empty_cache.run / "vm").iterdir()) == []
    assert not list((empty_cache.cache / "base").glob(".*"))


@pytest.mark.timeout(300)
def test_twenty_at_once_on_an_empty_cache_build_one(empty_cache: StateDirs) -> None:
    several = [
        subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    answers = [process.communicate(timeout=250) for process in several]
    assert [out for out, _ in answers] == ["forked\n"] * 20, answers[0][1]
    assert sum("made base VM" in said for _, said in answers) == 1
    assert base(empty_cache).is_dir()
    wait_until_gone(empty_cache)


async def _take(vm: VirtualMachine, size: int) -> None:
    """Take `size` bytes from the guest by its balloon."""
    await vm.qmp("balloon", value=vm.config.memory - size)
    for _ in range(600):
        if await vm.qmp("query-balloon") == {"actual": vm.config.memory - size}:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the guest gave nothing")


async def test_the_ram_file_is_never_written(empty_cache: StateDirs) -> None:
    async with await VirtualMachine.start(SMALL, dirs=empty_cache) as vm:
        folder = base(empty_cache)
        before = ram_digest(folder)
        known = (folder / "ram").stat()
        assert before == json.loads((folder / "manifest.json").read_text())["ram"]
        await vm.agent.call(vm.resume_message())
        # Memory pressure: more than the guest has, so that it must give up its caches.
        for number in range(400):
            if await _full(vm, number):
                break
        assert ram_digest(folder) == before
    async with await VirtualMachine.start(SMALL, dirs=empty_cache) as vm:
        await vm.agent.call(vm.resume_message())
        # A reboot ends the VM: QEMU runs with -no-reboot.
        await vm.qmp("system_reset")
        await vm.wait_closed()
    async with await VirtualMachine.start(SMALL, dirs=empty_cache) as vm:
        await vm.agent.call(vm.resume_message())
        # What gives memory back is under guard (`firkin.vmm.ram_guard`), or not there; nothing can be added that would.
        if vm.host.returns_memory:
            await _take(vm, 64 << 20)
        else:
            with pytest.raises(VirtualMachineError, match="balloon"):
                await vm.qmp("balloon", value=192 << 20)
        with pytest.raises(VirtualMachineError):
            await vm.qmp("device_add", driver="virtio-balloon-device")
        await vm.stop()
    for key in "cb":
        # The guest's own end: its kernel panics, or resets the machine.
        async with await VirtualMachine.start(SMALL, dirs=empty_cache) as vm:
            await vm.agent.call(vm.resume_message())
            with pytest.raises((LinkError, firkin.FirkinError)):
                await vm.agent.write_file("/proc/sysrq-trigger", key.encode())
            await vm.wait_closed()
    async with await VirtualMachine.start(SMALL, dirs=empty_cache) as vm:
        await vm.qmp("inject-nmi")
        os.kill(vm.pid, 9)
        await vm.wait_closed()
    assert ram_digest(folder) == before
    now = (folder / "ram").stat()
    assert (now.st_mtime_ns, now.st_ctime_ns) == (known.st_mtime_ns, known.st_ctime_ns)
    # No hole was punched. The host's file system may still add a block of its own when it writes the copy out.
    assert now.st_blocks >= known.st_blocks


async def _full(vm: VirtualMachine, number: int) -> bool:
    try:
        await vm.agent.write_file(f"/run/fill-{number}", os.urandom(900_000), timeout=30)
    except (LinkError, firkin.FirkinError):
        return True
    return False


@pytest.mark.parametrize("name", ["state", "ram"])
async def test_a_damaged_base_is_made_again(
    empty_cache: StateDirs, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with await VirtualMachine.start(SMALL, dirs=empty_cache):
        pass
    file = base(empty_cache) / name
    inode = file.stat().st_ino
    with file.open("r+b") as damaged:
        damaged.seek(5000)
        damaged.write(b"damaged")
    async with await VirtualMachine.start(SMALL, dirs=empty_cache) as vm:
        assert vm.forked
    assert "made again" in caplog.text
    assert (base(empty_cache) / name).stat().st_ino != inode


async def test_a_failed_restore_boots_instead_and_says_so(
    empty_cache: StateDirs, caplog: pytest.LogCaptureFixture
) -> None:
    async with await VirtualMachine.start(SMALL, dirs=empty_cache):
        pass
    folder = base(empty_cache)
    # A state that its manifest vouches for and that QEMU can't load.
    (folder / "state").write_bytes(b"no state of a VM")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["state"] = hashlib.sha256((folder / "state").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with caplog.at_level(logging.DEBUG, "firkin.vmm"):
        async with await VirtualMachine.start(SMALL, dirs=empty_cache) as vm:
            assert not vm.forked
    assert "can't fork a base VM, booting instead" in caplog.text
    async with await VirtualMachine.start(SMALL, dirs=empty_cache) as vm:
        assert vm.forked


async def test_forks_take_other_disks_and_keep_their_writes_apart(tmp_path: Path) -> None:
    from firkin.ext4 import make_empty

    config = VmConfig(cpus=1, memory=256 << 20)
    images = [tmp_path / "one", tmp_path / "two"]
    for size, image in zip((32 << 20, 200 << 20), images, strict=True):
        make_empty(image, size)
    vms = [
        await VirtualMachine.start(VmConfig(cpus=config.cpus, memory=config.memory, disks=(Disk(image), Disk(image))))
        for image in images
    ]
    try:
        sizes = []
        for vm in vms:
            await vm.agent.call(vm.resume_message())
            for disk in (0, 1):
                await vm.agent.mount("ext4", f"serial:disk{disk}", f"/run/{disk}", mkdir=True)
            await vm.agent.write_file("/run/0/here", b"x")
            await vm.agent.stat("/run/0/here")
            with pytest.raises(firkin.FirkinError):
                await vm.agent.stat("/run/1/here")
            sizes.append(vm.forked)
        assert sizes == [True, True]
    finally:
        await asyncio.gather(*(vm.aclose() for vm in vms))


async def test_more_devices_than_one_ioapic_serves_fork_too(tmp_path: Path) -> None:
    from firkin.ext4 import make_empty

    images = [tmp_path / str(number) for number in range(9)]
    for image in images:
        make_empty(image, 32 << 20)
    config = VmConfig(cpus=1, memory=256 << 20, disks=tuple(map(Disk, images)))
    async with await VirtualMachine.start(config) as vm:
        assert vm.forked
        assert vm.host.machine != "microvm" or machine_type(config, vm.host).endswith("ioapic2=on")
        await vm.agent.call(vm.resume_message())
        for number in range(len(images)):
            await vm.agent.mount("ext4", f"serial:disk{number}", f"/run/{number}", mkdir=True)
            await vm.agent.write_file(f"/run/{number}/own", str(number).encode())


SECRETS = """
import os, random, uuid
print(os.getrandom(16).hex(), os.urandom(16).hex(), uuid.uuid4(), random.random(), sep="\\n")
for path in ("/proc/sys/kernel/random/uuid", "/sys/class/net/eth0/address"):
    print(open(path).read().strip())
"""


@pytest.mark.parametrize("cpu_model", [None, "Nehalem-v1,+arat"], ids=["rdrand", "no rdrand"])
def test_two_forks_share_neither_randomness_nor_an_address(debian_python_image: Image, cpu_model: str | None) -> None:
    program = ["python3", "-c", SECRETS]
    several = [firkin.run("debian-python", program, text=True, cpu_model=cpu_model) for _ in range(3)]
    lines = [str(result.stdout).splitlines() for result in several]
    assert {len(found) for found in lines} == {6}, several
    for row in zip(*lines, strict=True):
        assert len(set(row)) == 3, row


async def _clock_is_right(vm: VirtualMachine) -> bool:
    """Whether the guest's clock, after a first message, is right to 50 ms beyond what that message was under way."""
    sent = time.time_ns()
    await vm.agent.call(vm.resume_message())
    told: int = (await vm.agent.info()).realtime_ns
    return sent - 50_000_000 <= told <= time.time_ns() + 50_000_000


async def test_the_clock_is_right_before_user_code() -> None:
    async with await VirtualMachine.start(SMALL) as vm:
        assert await _clock_is_right(vm)


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_the_clock_is_right_after_a_minutes_sleep() -> None:
    async with await VirtualMachine.start(SMALL) as vm:
        assert await _clock_is_right(vm)
        await vm.pause()
        await asyncio.sleep(60)
        await vm.resume()
        assert await _clock_is_right(vm)
    # The base VM, too, has slept a minute by now.
    async with await VirtualMachine.start(SMALL) as vm:
        assert await _clock_is_right(vm)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_the_fiftieth_fork_is_no_slower_than_twice_the_first() -> None:
    vms: list[VirtualMachine] = []
    times = []
    try:
        for _ in range(50):
            began = time.perf_counter()
            vms.append(await VirtualMachine.start(SMALL))
            await vms[-1].agent.call(vms[-1].resume_message())
            times.append(time.perf_counter() - began)
        assert all(vm.forked and vm.running for vm in vms)
        assert sorted(times[-10:])[5] <= 2 * sorted(times[1:11])[5]
    finally:
        await asyncio.gather(*(vm.aclose() for vm in vms))
