"""A start without an event loop: what it finds, and that nothing of it is left where nobody goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.core.beginning import begin
from firkin.core.container import AsyncContainer
from firkin.errors import InvalidInputError, StateError
from firkin.oci import Image
from firkin.types import StateDirs
from firkin.vmm import VmConfig, VmFolder
from firkin.vmm.head_start import head_start


def test_a_host_that_was_never_looked_at_has_no_head_start(fresh_home: Path) -> None:
    dirs = StateDirs.default()
    with VmFolder.claim(dirs, "x") as folder:
        assert head_start(folder, VmConfig(), dirs) is None
        assert {path.name for path in folder.path.iterdir()} == {"owner"}


def test_what_can_not_be_found_is_left_to_the_event_loop(fresh_home: Path) -> None:
    with begin("registry.invalid/x", ["true"], name="x", dirs=None, options={}) as begun:
        assert (begun.machine, begun.ahead) == (None, None)
        with pytest.raises(StateError, match="in use"):
            begin("registry.invalid/x", ["true"], name="x", dirs=None, options={})
    assert list((fresh_home / "run/vm").iterdir()) == []


def test_a_mistake_leaves_no_folder(fresh_home: Path) -> None:
    with pytest.raises(InvalidInputError, match="no such"):
        begin("busybox", ["true"], name="x", dirs=None, options={"no such": 1})  # type: ignore[typeddict-unknown-key]
    assert not (fresh_home / "run/vm").exists()


@pytest.mark.vm
async def test_a_start_that_nobody_goes_on_with_leaves_nothing(home: Path, busybox_image: Image) -> None:
    """Its QEMU runs already; the check for leftovers sees that it has ended."""
    async with await AsyncContainer.launch("busybox", ["true"]):
        pass
    with begin("busybox", ["true"], name="begun", dirs=None, options={}) as begun:
        assert begun.ahead is not None
        assert (home / "run/vm/begun/qmp.sock").exists()
    assert not (home / "run/vm/begun").exists()


@pytest.mark.vm
async def test_a_mistake_in_the_specification_ends_the_vm(home: Path, busybox_image: Image) -> None:
    async with await AsyncContainer.launch("busybox", ["true"]) as container:
        assert "import" in container.timings.phases or not container.forked
    with pytest.raises(InvalidInputError, match="ALL is both"):
        begin("busybox", ["true"], name="begun", dirs=None, options={"cap_add": ["ALL"], "cap_drop": ["ALL"]})
    assert not (home / "run/vm/begun").exists()
