"""What a container may do: its default restrictions, and `--security-opt`, which changes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from firkin.errors import InvalidInputError
from firkin.types import GuestPath, LinuxCapabilities

if TYPE_CHECKING:
    from firkin.core.seccomp import Seccomp

__all__ = [
    "MASKED_PATHS",
    "READONLY_PATHS",
    "SecurityOptions",
    "effective_capabilities",
]

MASKED_PATHS = tuple(
    GuestPath(path)
    for path in (
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    )
)
"""Hidden by default: what Docker and containerd hide, because it tells of the host (here: the VM) or of its timing."""

READONLY_PATHS = tuple(
    GuestPath(path) for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
)
"""Read-only by default: what Docker and containerd protect, because writing there changes the kernel for everybody."""


class SecurityOptions(NamedTuple):
    """`--security-opt`, together: `None` and `""` are unset."""

    seccomp: Seccomp | Literal["default", "unconfined"] = "default"
    apparmor_profile: str = ""
    selinux_label: str = ""
    no_new_privileges: bool | None = None
    system_paths_unconfined: bool = False

    @classmethod
    def parse(cls, options: tuple[str, ...]) -> SecurityOptions:
        """Read Docker's options, `KEY=VALUE` (or `KEY:VALUE`): seccomp, apparmor, label, no-new-privileges,
        systempaths.

        `seccomp` takes `unconfined`, `default` or a profile's file. Raises `InvalidInputError`.
        """
        found = cls()
        labels: dict[str, str] = {}
        for option in options:
            key, value = _split(option)
            if key == "seccomp":
                found = found._replace(seccomp=_seccomp(value, option))
            elif key == "apparmor" and value:
                found = found._replace(apparmor_profile=value)
            elif key == "label" and value:
                labels.update(_label(value, option))
            elif key == "no-new-privileges" and value in ("", "true", "false"):
                found = found._replace(no_new_privileges=value != "false")
            elif key == "systempaths" and value == "unconfined":
                found = found._replace(system_paths_unconfined=True)
            else:
                raise InvalidInputError(
                    f"{option!r} is not a security option",
                    value=option,
                    hint="seccomp=, apparmor=, label=, no-new-privileges or systempaths=unconfined",
                )
        return found._replace(selinux_label=_join_label(labels))


def _split(option: str) -> tuple[str, str]:
    equals, colon = option.find("="), option.find(":")
    at = equals if equals >= 0 and (colon < 0 or equals < colon) else colon
    return (option, "") if at < 0 else (option[:at], option[at + 1 :])


def _seccomp(value: str, option: str) -> Seccomp | Literal["default", "unconfined"]:
    if value in ("unconfined", "default"):
        return "unconfined" if value == "unconfined" else "default"
    if not value:
        raise InvalidInputError(f"{option!r} names no profile", value=option, hint="seccomp=unconfined or seccomp=FILE")
    from firkin.core.seccomp import Seccomp

    return Seccomp.load(Path(value))


def _label(value: str, option: str) -> dict[str, str]:
    part, _, content = value.partition(":")
    if value == "disable":
        return {"disable": "yes"}
    if part not in ("user", "role", "type", "level") or not content:
        raise InvalidInputError(
            f"{option!r} is not a label", value=option, hint="label=user:U, role:R, type:T, level:L or label=disable"
        )
    return {part: content}


def _join_label(labels: dict[str, str]) -> str:
    """SELinux's `user:role:type:level`, the parts not given as container-selinux has them."""
    if not labels or "disable" in labels:
        return ""
    defaults = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "s0"}
    return ":".join((defaults | labels)[part] for part in defaults)


def effective_capabilities(
    capabilities: LinuxCapabilities | None, add: tuple[str, ...], drop: tuple[str, ...], *, privileged: bool
) -> LinuxCapabilities:
    """The sets that a process gets: `capabilities`, else all for `privileged` and the default 14; then added and
    dropped.
    """
    base = capabilities
    if base is None:
        base = LinuxCapabilities.all() if privileged else LinuxCapabilities.default_oci()
    return base.changed(add=add, drop=drop) if add or drop else base
