"""Hardware virtualization inside a VM: whether this host can offer it."""

from __future__ import annotations

from pathlib import Path

from firkin.errors import InvalidInputError
from firkin.vmm.host import HostCapabilities

__all__ = ["check_nested"]


def check_nested(host: HostCapabilities, modules: Path = Path("/sys/module")) -> None:
    """Raise `InvalidInputError` where a VM of `host` could not run VMs of its own, and say why."""
    if host.accelerator != "kvm":
        raise InvalidInputError(
            f"--nested needs KVM, and VMs are emulated here: {host.accelerator_reason}", hint="leave --nested out"
        )
    if host.arch != "x86_64":
        raise InvalidInputError(f"--nested is not served on {host.arch}", hint="leave --nested out")
    for name in ("kvm_intel", "kvm_amd"):
        try:
            if (modules / name / "parameters/nested").read_text().strip() in ("Y", "1"):
                return
        except OSError:
            # The other one, or built in without the parameter.
            continue
    raise InvalidInputError(
        "--nested needs a KVM that offers it", hint="load kvm_intel or kvm_amd with nested=1, or leave --nested out"
    )
