"""The accelerator is chosen by trying: here with programs that behave as QEMU does on such hosts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firkin.errors import BootError
from firkin.vmm.accel import judge
from firkin.vmm.assets import BootAssets
from firkin.vmm.host import Verdict
from firkin.vmm.kernel import KernelImage
from tests.vmm.test_argv import TCG

BOOTS = """
console = next(word for word in sys.argv if word.startswith("socket,id=console"))
os.write(int(console.rpartition("=")[2]), b"Linux version 6.1\\nKernel panic - not syncing: VFS: Unable to mount\\n")
"""
HANGS = "time.sleep(60)"
REFUSES = 'sys.exit("qemu-system-x86_64: could not set up MSR 0x345")'

Judge = Callable[..., Verdict]


@pytest.fixture
def assets(tmp_path: Path) -> BootAssets:
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF")
    return BootAssets(tmp_path / "vmlinux", tmp_path / "initramfs", "k", "i", KernelImage(tmp_path / "vmlinux"))


@pytest.fixture
def judged(tmp_path: Path, assets: BootAssets) -> Judge:
    """`judge` on a host whose QEMU does as the given lines of Python say, and whose /dev/kvm is a plain file."""

    def with_qemu(code: str, accel: str, limit: float = 5.0, device: str = "kvm") -> Verdict:
        qemu = tmp_path / "qemu"
        qemu.write_text(f"#!{sys.executable}\nimport os, sys, time\n{code}\n")
        qemu.chmod(0o755)
        (tmp_path / "kvm").touch(0o666)
        return judge(replace(TCG, qemu=str(qemu)), assets, accel, tmp_path, limit=limit, device=tmp_path / device)

    return with_qemu


def test_a_guest_that_boots_under_kvm_settles_it(judged: Judge) -> None:
    assert judged(BOOTS, "auto") == Verdict("kvm", "a guest booted under KVM")


def test_a_kvm_that_hangs_is_found_out_within_the_limit(judged: Judge, caplog: pytest.LogCaptureFixture) -> None:
    assert judged(HANGS, "auto", limit=0.2) == Verdict("tcg", "a guest did not boot within 0.2 s")
    assert len(caplog.records) == 1
    assert "software" in caplog.text


def test_what_qemu_said_is_the_reason(judged: Judge) -> None:
    assert judged(REFUSES, "auto") == Verdict("tcg", "QEMU said: could not set up MSR 0x345")


def test_kvm_by_name_does_not_fall_back(judged: Judge) -> None:
    with pytest.raises(BootError, match=r"KVM does not work here: QEMU said: .*FIRKIN_ACCEL=tcg") as caught:
        judged(REFUSES, "kvm")
    assert not caught.value.transient


def test_without_the_device_nothing_is_tried(judged: Judge) -> None:
    verdict = judged('raise SystemExit("tried")', "auto", device="absent")
    assert verdict.accelerator == "tcg"
    assert "there is no" in verdict.reason


def test_tcg_by_name_tries_nothing(judged: Judge) -> None:
    assert judged('raise SystemExit("tried")', "tcg").accelerator == "tcg"


def test_nothing_is_left_of_a_trial(judged: Judge) -> None:
    before = _open_descriptors()
    judged(HANGS, "auto", limit=0.1)
    assert _open_descriptors() == before


def _open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}
