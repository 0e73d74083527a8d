"""Scenario: virtual machines inside of one."""

from __future__ import annotations

import pytest

import firkin
from firkin.errors import InvalidInputError
from firkin.oci import Image
from firkin.types import StateDirs
from firkin.vmm.assets import resolve_assets
from firkin.vmm.host import probe
from firkin.vmm.nested import check_nested

COUNT = ["grep", "-cE", "vmx|svm", "/proc/cpuinfo"]


@pytest.mark.vm
@pytest.mark.scenario("nested virt")
def test_nested(busybox_image: Image) -> None:
    """Where the host can, the processors inside can; where it can't, that is said by name, and nothing is started."""
    dirs = StateDirs.default()
    try:
        check_nested(probe(dirs, resolve_assets(dirs)))
    except InvalidInputError:
        with pytest.raises(InvalidInputError, match="--nested"):
            firkin.run("busybox", COUNT, nested=True)
    else:
        assert firkin.run("busybox", COUNT, nested=True).stdout == b"2\n"
