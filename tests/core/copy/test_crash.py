"""Copies whose owner is killed at a named point, or whose guest dies: nothing half is left, and the reason is told."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin.core.container import AsyncContainer
from firkin.core.copy.unpack import HostPlace
from firkin.errors import VirtualMachineError
from firkin.oci import Image
from tests.core.copy.test_unpack import archive, folder, names, take

pytestmark = pytest.mark.vm
MIB = 1 << 20
# Into the guest, then out of it: a folder that is not there, a folder that is, one file.
SCRIPT = """
import sys, firkin
with firkin.Container.launch("busybox", ["sleep", "600"]) as box:
    box.put(sys.argv[1] + "/src", "/root/new", create_parents=True)
    box.get("/root/new", sys.argv[1] + "/to/" + sys.argv[2])
"""


@pytest.mark.parametrize(
    ("point", "existing", "left"),
    [
        ("copy.packing", False, 0),
        ("copy.unpacking", False, 1),
        ("copy.unpacked", False, 1),
        ("copy.unpacking", True, 0),
    ],
)
def test_the_owner_is_killed(
    point: str,
    existing: bool,
    left: int,
    tmp_path: Path,
    busybox_image: Image,
    check_nothing_is_left: Callable[[], None],
) -> None:
    """`left`: what the next copy into the same folder removes."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "file").write_bytes(os.urandom(MIB))
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "there").mkdir()
    environ = {**os.environ, "FIRKIN_FAULT": f"{point}=kill"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "there" if existing else "new"]
    done = subprocess.run(command, env=environ, timeout=120, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    check_nothing_is_left()
    visible = [path.name for path in (tmp_path / "to").rglob("*") if path.is_file() and ".firkin" not in str(path)]
    hidden = [path.name for path in (tmp_path / "to").iterdir() if path.name.startswith(".firkin-get-")]
    assert (visible, len(hidden)) == ([], left)
    take(archive(folder("t")), HostPlace(tmp_path / "to", b"next"))
    assert {name.split("/")[0] for name in names(tmp_path / "to")} == {"there", "next"}


async def test_the_guest_dies_in_the_middle(tmp_path: Path, busybox_image: Image) -> None:
    async with await AsyncContainer.launch("busybox", ["sleep", "600"]) as box:
        await box.run(["sh", "-c", "head -c 100m /dev/zero > /big"], check=True)
        begun = asyncio.Event()
        out = asyncio.create_task(box.get("/big", tmp_path / "big", progress=lambda _: begun.set()))
        into = asyncio.create_task(box.put(io.BytesIO(bytes(256 * MIB)), "/into"))
        await begun.wait()
        await box.vm.kill()
        for copy in (out, into):
            with pytest.raises(VirtualMachineError) as caught:
                await copy
            assert str(caught.value)
    assert list(tmp_path.iterdir()) == []
