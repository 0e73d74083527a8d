"""What a saved VM needs of a host: said when it is saved, compared before it is restored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from firkin.errors import StateError
from firkin.vmm.argv import machine_type
from firkin.vmm.config import VmConfig
from firkin.vmm.host import HostCapabilities

__all__ = ["Needs"]

# For people, by field.
_NAMES = {
    "machine": "machine",
    "qemu": "QEMU",
    "accelerator": "accelerator",
    "cpu": "CPU model",
    "processor": "processor (a hash of model and features)",
    "tsc_mhz": "TSC rate in MHz",
    "cpus": "number of processors",
    "memory": "memory in bytes",
    "disks": "number of disks",
    "networks": "number of networks",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """The VM's own shape and what it found in its host, as far as its devices' state or its kernel depends on it."""

    machine: str
    qemu: str
    accelerator: str
    cpu: str
    processor: str
    tsc_mhz: int
    cpus: int
    memory: int
    disks: int
    networks: int

    @classmethod
    def of(cls, config: VmConfig, host: HostCapabilities) -> Self:
        """What a VM of `config` that is saved here, now, will need; also what this host has for one."""
        return cls(
            machine=machine_type(config, host),
            qemu=".".join(map(str, host.qemu_version)),
            accelerator=host.accelerator,
            cpu=host.cpu_model(config.cpu_model, nested=config.nested),
            # What "host" means: another processor under the same name must not be restored to.
            processor=host.processor if host.accelerator == "kvm" else "",
            # Each start of the host measures it a little differently.
            tsc_mhz=round(host.tsc_khz / 1000),
            cpus=config.cpus,
            memory=config.memory,
            disks=len(config.disks),
            networks=len(config.networks),
        )

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """The reverse of `as_document`. Raises `KeyError`, `TypeError`."""
        return cls(**{field.name: document[field.name] for field in fields(cls)})

    def as_document(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)

    def check(self, found: Needs, name: str) -> None:
        """Raise `StateError` that names the first thing in which `found` is not what `name` needs."""
        for key, what in _NAMES.items():
            wanted, there = getattr(self, key), getattr(found, key)
            if wanted != there:
                message = f"{name} was saved with another {what}: it needs {wanted}, here is {there}"
                raise StateError(message, hint="restore it on a host like the one it was saved on")
