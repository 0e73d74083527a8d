"""The guest's disks stand in the order in which they were given: core names them by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.core.guest_root import disk_device
from firkin.ext4 import make_empty
from firkin.oci import Image, ImageStore
from firkin.vmm import Disk, VirtualMachine, VmConfig

pytestmark = pytest.mark.vm


@pytest.mark.parametrize("fork", [True, False])
async def test_disks_are_in_order(store: ImageStore, busybox_image: Image, tmp_path: Path, fork: bool) -> None:
    paths = [tmp_path / f"{index}.ext4" for index in range(3)]
    for index, path in enumerate(paths):
        make_empty(path, (64 + 16 * index) << 20, label=f"disk{index}")
    config = VmConfig(disks=tuple(Disk(path, overlay=False) for path in paths))
    async with await VirtualMachine.start(config, fork=fork) as vm:
        await vm.agent.call(vm.resume_message())
        for index in range(3):
            here = f"/run/{index}"
            await vm.agent.mount("ext4", disk_device(index), here, mkdir=True)
            await vm.agent.write_file(f"{here}/written-to-{index}", b"")
            await vm.agent.umount(here)
            await vm.agent.mount("ext4", f"serial:disk{index}", here)
            assert (await vm.agent.stat(f"{here}/written-to-{index}")).nlink == 1
