"""What the VM of a container is made of."""

from __future__ import annotations

import math
from pathlib import Path

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types import Size

__all__ = ["VmOptions"]

# Below it a stock kernel with an initramfs does not come up.
_MEMORY = Size.mib(512)
_DISK = Size.gib(16)
_MOST_CPUS = 64
_LEAST_MEMORY = Size.mib(96)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class VmOptions:
    """The VM's size and knobs.

    `cpus` may have a fraction: the VM gets the next whole number of processors, the container's cgroup the quota.
    `disk` is the room of the root filesystem. `writable_layer`: a disk image that holds the container's changes and
    outlives it. `emulate`: run programs of another architecture; `None` where the image needs it. `kernel`, `boot_log`:
    files. `accel`: `kvm`, `tcg` or `auto`. `fork`: start from a base VM rather than by a boot. `warm`: start from a
    saved VM that has the image's root mounted, made at the first such start. Raises `InvalidInputError`.
    """

    cpus: float = 2
    memory: Size = _MEMORY
    disk: Size = _DISK
    writable_layer: Path | None = None
    emulate: bool | None = None
    nested: bool = False
    kernel: Path | None = None
    cmdline_extra: tuple[str, ...] = ()
    boot_log: Path | None = None
    cpu_model: str | None = None
    accel: str | None = None
    fork: bool = True
    warm: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cpus) and 0.01 <= self.cpus <= _MOST_CPUS):
            raise InvalidInputError(
                f"{self.cpus} processors are out of range", value=self.cpus, hint=f"0.01 to {_MOST_CPUS}"
            )
        if self.memory < _LEAST_MEMORY:
            raise InvalidInputError(
                f"a VM does not boot in {Size(self.memory)} of memory",
                value=self.memory,
                hint=f"at least {_LEAST_MEMORY}",
            )
        if self.accel not in (None, "auto", "kvm", "tcg"):
            raise InvalidInputError(f"{self.accel!r} is not an accelerator", value=self.accel, hint="auto, kvm or tcg")
        for part in self.cmdline_extra:
            if not part.isprintable() or not part.strip():
                raise InvalidInputError(f"{part!r} can't be put on a kernel's command line", value=part)

    @property
    def vcpus(self) -> int:
        """Whole processors of the VM."""
        return math.ceil(self.cpus)
