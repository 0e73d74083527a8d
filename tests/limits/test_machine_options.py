"""`--nested`, `--kernel` and `--cpu-model`: they do what they say, or are refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firkin.errors import InvalidInputError
from firkin.oci import Image
from firkin.types import StateDirs
from firkin.vmm.assets import resolve_assets
from firkin.vmm.host import HostCapabilities, probe
from firkin.vmm.nested import check_nested
from tests.cli.conftest import Firkin

vm = pytest.mark.vm


@pytest.fixture
def host() -> HostCapabilities:
    dirs = StateDirs.default()
    return probe(dirs, resolve_assets(dirs))


def test_nested_is_refused_by_name(tmp_path: Path, host: HostCapabilities) -> None:
    emulated = replace(host, accelerator="tcg", accelerator_reason="no such device")
    with pytest.raises(InvalidInputError, match="--nested needs KVM, and VMs are emulated here: no such device"):
        check_nested(emulated)
    real = replace(host, accelerator="kvm", arch="x86_64")
    with pytest.raises(InvalidInputError, match="a KVM that offers it"):
        check_nested(real, tmp_path)
    parameter = tmp_path / "kvm_amd/parameters/nested"
    parameter.parent.mkdir(parents=True)
    for text in ("0\n", "N\n"):
        parameter.write_text(text)
        with pytest.raises(InvalidInputError):
            check_nested(real, tmp_path)
    for text in ("1\n", "Y\n"):
        parameter.write_text(text)
        check_nested(real, tmp_path)


@vm
def test_another_kernel_and_cpu_model(firkin: Firkin, busybox_image: Image, tmp_path: Path) -> None:
    kernel = resolve_assets(StateDirs.default()).kernel
    assert kernel.modules is not None
    # As a package of a distribution lays them out.
    own = tmp_path / "boot" / kernel.path.name
    own.parent.mkdir()
    own.write_bytes(kernel.path.read_bytes())
    (tmp_path / "lib/modules").mkdir(parents=True)
    (tmp_path / "lib/modules" / kernel.modules.name).symlink_to(kernel.modules)
    script = "uname -r; grep -m1 'model name' /proc/cpuinfo; cat /proc/cmdline"
    # Booted: base VMs of these shapes would be made for this test alone.
    given = ["--no-fork", "--kernel", str(own), "--cpu-model", "Westmere-v1,+rdrand", "--kernel-arg", "firkin.mark=1"]
    result = firkin("run", *given, "busybox", "sh", "-c", script)
    assert result.returncode == 0, result.stderr
    release, model, cmdline = result.stdout.splitlines()
    assert release == kernel.modules.name
    assert "Westmere" in model
    assert "firkin.mark=1" in cmdline


@vm
def test_what_is_no_kernel_and_no_model_is_said(firkin: Firkin, busybox_image: Image, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no kernel")
    for flag, value, said in (
        ("--kernel", str(tmp_path / "none"), "none"),
        ("--kernel", str(tmp_path / "text"), "neither a bzImage"),
        ("--cpu-model", "NoSuchModel", "NoSuchModel"),
    ):
        result = firkin("run", "--no-fork", flag, value, "busybox", "true")
        assert result.returncode == 125
        assert said in result.stderr
        assert result.stderr.count("\n") <= 2
