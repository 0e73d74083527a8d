"""What a VM may be asked to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import InvalidInputError
from firkin.vmm.config import BootLog, Disk, Network, VmConfig, disk_capacity

TIB = 1 << 40


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"cpus": 0}, "1 to 64 cpus"),
        ({"cpus": 65}, "1 to 64 cpus"),
        ({"memory": 1 << 20}, "at least 96"),
        ({"memory": (512 << 20) + 1}, "whole MiB"),
        ({"accel": "hvf"}, "no accelerator 'hvf'"),
        ({"cmdline_extra": "a\nb"}, "printable ASCII"),
        ({"cpu_model": "max x"}, "not a CPU model"),
        ({"disks": (Disk(Path("/x")),) * 17}, "at most 16 disks"),
    ],
)
def test_what_can_not_be_is_refused_where_it_is_said(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        VmConfig(**options)


@pytest.mark.parametrize("mac", ["", "52:54:00:00:00", "52:54:00:00:00:0g", "52-54-00-00-00-01", "52:54:00:00:00:01,x"])
def test_a_mac_address_is_six_bytes(mac: str) -> None:
    with pytest.raises(InvalidInputError, match="not a MAC address"):
        Network(3, mac)


@given(st.integers(0, 1 << 50))
def test_a_disk_is_a_power_of_two_tebibytes(size: int) -> None:
    capacity = disk_capacity(size)
    assert capacity >= max(size, TIB)
    assert capacity & (capacity - 1) == 0
    assert capacity == TIB or capacity < 2 * size


def test_only_a_disk_without_overlay_is_written() -> None:
    assert not Disk(Path("/x")).direct
    assert not Disk(Path("/x"), read_only=True, overlay=False).direct
    assert Disk(Path("/x"), overlay=False).direct
    assert BootLog.file("/x/y.log") == BootLog(Path("/x/y.log"))
