"""The probe of the host: what it finds, what it remembers, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.errors import BootError, InvalidInputError
from firkin.types.state import StateDirs
from firkin.vmm.assets import BootAssets
from firkin.vmm.host import probe
from firkin.vmm.kernel import KernelImage
from firkin.vmm.tsc import tsc_khz


@pytest.fixture
def dirs(tmp_path: Path) -> StateDirs:
    return StateDirs.under(tmp_path / "home")


@pytest.fixture
def assets(tmp_path: Path) -> BootAssets:
    return BootAssets(tmp_path / "vmlinux", tmp_path / "initramfs", "k", "i", KernelImage(tmp_path / "vmlinux"))


def qemu(tmp_path: Path, version: str = "7.2.22", more: str = "") -> dict[str, str]:
    """A QEMU that says its version, and counts how often it was asked."""
    path = tmp_path / "qemu"
    path.write_text(
        f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho 'QEMU emulator version {version} (Debian)'\n{more}\n"
    )
    path.chmod(0o755)
    return {"FIRKIN_QEMU": str(path), "FIRKIN_ACCEL": "tcg"}


def test_it_is_remembered(tmp_path: Path, dirs: StateDirs, assets: BootAssets) -> None:
    environ = qemu(tmp_path, more="echo '-sandbox on[,obsolete=allow|deny]'")
    found = probe(dirs, assets, environ=environ)
    assert found.qemu_version == (7, 2, 22)
    assert found.sandbox
    assert found.accelerator == "tcg"
    assert probe(dirs, assets, environ=environ) == found
    assert (tmp_path / "asked").read_text() == "asked\n"


def test_another_qemu_is_asked_again(tmp_path: Path, dirs: StateDirs, assets: BootAssets) -> None:
    first = probe(dirs, assets, environ=qemu(tmp_path))
    second = probe(dirs, assets, environ=qemu(tmp_path, "8.2.1"))
    assert not first.read_only_ram
    assert second.read_only_ram
    assert second.qemu_identity != first.qemu_identity


@pytest.mark.parametrize(
    ("version", "why"), [("6.2.0", "QEMU 6.2.0 is too old"), ("unknown", "does not say its version")]
)
def test_a_qemu_that_will_not_do(tmp_path: Path, dirs: StateDirs, assets: BootAssets, version: str, why: str) -> None:
    with pytest.raises(BootError, match=why):
        probe(dirs, assets, environ=qemu(tmp_path, version))


def test_a_damaged_note_is_written_anew(tmp_path: Path, dirs: StateDirs, assets: BootAssets) -> None:
    environ = qemu(tmp_path)
    found = probe(dirs, assets, environ=environ)
    (note,) = dirs.cache.glob("assets/host-*.json")
    note.write_text("{")
    assert probe(dirs, assets, environ=environ) == found


def test_an_unknown_accelerator_is_refused(tmp_path: Path, dirs: StateDirs, assets: BootAssets) -> None:
    with pytest.raises(InvalidInputError, match="FIRKIN_ACCEL is 'hvf'"):
        probe(dirs, assets, environ=qemu(tmp_path) | {"FIRKIN_ACCEL": "hvf"})


def test_the_measured_counter_agrees_with_another_measurement(tmp_path: Path) -> None:
    one, other = tsc_khz(tmp_path / "absent"), tsc_khz(tmp_path / "absent")
    assert one is not None
    assert other is not None
    assert abs(one - other) < one / 1000


def test_a_stated_rate_that_agrees_is_taken_to_the_digit(tmp_path: Path) -> None:
    measured = tsc_khz(tmp_path / "absent")
    assert measured is not None
    stated = round(measured * 1.00005)
    (tmp_path / "cpuinfo").write_text(f"model name\t: x\ncpu MHz\t\t: {stated / 1000:.3f}\n")
    assert tsc_khz(tmp_path / "cpuinfo") == stated
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 1.000\n")
    assert abs((tsc_khz(tmp_path / "cpuinfo") or 0) - measured) < measured / 1000
