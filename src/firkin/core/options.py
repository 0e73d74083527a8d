"""Everything that can be said about a container, checked, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Literal, get_args

from firkin.core.network_options import NetworkOptions
from firkin.core.process_options import ProcessOptions, check_command
from firkin.core.vm_options import VmOptions
from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.oci.ensure import PullPolicy
from firkin.types import GuestPath, Hostname, Platform, Signal, Size

if TYPE_CHECKING:
    from firkin.core.limits import Limits
    from firkin.core.mount import FileMount, Mount, VirtiofsShare
    from firkin.core.seccomp import Seccomp

__all__ = ["ContainerOptions"]

# Docker's.
_SHM_SIZE = Size.mib(64)


@dataclass(frozen=True, kw_only=True)
class ContainerOptions(ProcessOptions, VmOptions, NetworkOptions):
    """A container's options. `option_inputs.container_options` makes one of looser values (texts, lists, mappings).

    Unset (`None` or empty) takes the image's. `entrypoint` given, even empty, also puts the image's command aside.
    `masked_paths` and `readonly_paths`: `None` for the defaults, `()` for none. `pids_limit` counts tasks.
    `read_bps`, `write_bps`: bytes a second from and to the root filesystem's disk, `read_iops`, `write_iops`:
    operations. `privileged`: every capability, no seccomp, nothing masked or read-only, inside the VM. `pull`: when the
    image's registry is asked. `platform`: which of an image's several, in place of the host's. Raises
    `InvalidInputError`.
    """

    entrypoint: tuple[str, ...] | None = None
    hostname: Hostname | None = None
    stop_signal: Signal | None = None
    stop_timeout: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    seccomp: Seccomp | Literal["default", "unconfined"] = "default"
    sysctl: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False
    masked_paths: tuple[GuestPath, ...] | None = None
    readonly_paths: tuple[GuestPath, ...] | None = None
    mounts: tuple[Mount, ...] = ()
    file_mounts: tuple[FileMount, ...] = ()
    virtiofs_shares: tuple[VirtiofsShare, ...] = ()
    shm_size: Size = _SHM_SIZE
    pids_limit: int | None = None
    read_bps: Size | None = None
    write_bps: Size | None = None
    read_iops: int | None = None
    write_iops: int | None = None
    use_init: bool = False
    pull: PullPolicy = "missing"
    platform: Platform | None = None

    def __post_init__(self) -> None:
        for part in (ProcessOptions, VmOptions, NetworkOptions):
            part.__post_init__(self)
        check_command("entrypoint", self.entrypoint or ())
        if self.pids_limit is not None and self.pids_limit < 1:
            raise InvalidInputError(f"a limit of {self.pids_limit} processes allows none", value=self.pids_limit)
        for rate in (self.read_bps, self.write_bps, self.read_iops, self.write_iops):
            if rate is not None and rate < 1:
                raise InvalidInputError(f"{rate} a second from or to the disk allows nothing", value=rate)
        if self.stop_timeout is not None and not self.stop_timeout >= 0:
            raise InvalidInputError(f"{self.stop_timeout} seconds is not a time to wait", value=self.stop_timeout)
        for key, value in self.sysctl.items():
            _check_sysctl(key, value)
        if self.pull not in get_args(PullPolicy):
            raise InvalidInputError(
                f"{self.pull!r} is no policy of pulling", value=self.pull, hint="always, missing, never"
            )
        tags = {share.tag for share in self.virtiofs_shares}
        if len(tags) != len(self.virtiofs_shares):
            raise InvalidInputError("two shares have one tag", value=sorted(tags), hint="give each share its own tag")
        for mount in self.mounts:
            if mount.kind == "virtiofs" and mount.source not in tags:
                raise InvalidInputError(
                    f"no share has the tag {mount.source!r}", value=mount, hint="add it to virtiofs_shares"
                )

    @property
    def disk_rates(self) -> Limits | None:
        """The limits of the root filesystem's disk, if there is one."""
        from firkin.core.limits import Limits

        limits = Limits.of(
            read_bps=self.read_bps, write_bps=self.write_bps, read_iops=self.read_iops, write_iops=self.write_iops
        )
        return limits if limits.rates else None


def _check_sysctl(key: str, value: str) -> None:
    parts = key.replace("/", ".").split(".")
    if len(parts) < 2 or any(not part or part.startswith(".") for part in parts) or not key.isprintable():
        raise InvalidInputError(f"{key!r} is not a sysctl", value=key, hint="as net.ipv4.ip_forward")
    if "\n" in value or "\0" in value:
        raise InvalidInputError(f"the value of the sysctl {key} is more than a line", value=value)
