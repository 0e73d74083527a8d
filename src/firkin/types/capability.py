"""Linux capabilities, capabilities(7), and the five sets of a process."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass

__all__ = ["Capability", "LinuxCapabilities"]


class Capability(StrEnum):
    """The capabilities of Linux 6.1 in the order of their numbers (include/uapi/linux/capability.h).

    The value is the OCI name.
    """

    CHOWN = "CAP_CHOWN"
    DAC_OVERRIDE = "CAP_DAC_OVERRIDE"
    DAC_READ_SEARCH = "CAP_DAC_READ_SEARCH"
    FOWNER = "CAP_FOWNER"
    FSETID = "CAP_FSETID"
    KILL = "CAP_KILL"
    SETGID = "CAP_SETGID"
    SETUID = "CAP_SETUID"
    SETPCAP = "CAP_SETPCAP"
    LINUX_IMMUTABLE = "CAP_LINUX_IMMUTABLE"
    NET_BIND_SERVICE = "CAP_NET_BIND_SERVICE"
    NET_BROADCAST = "CAP_NET_BROADCAST"
    NET_ADMIN = "CAP_NET_ADMIN"
    NET_RAW = "CAP_NET_RAW"
    IPC_LOCK = "CAP_IPC_LOCK"
    IPC_OWNER = "CAP_IPC_OWNER"
    SYS_MODULE = "CAP_SYS_MODULE"
    SYS_RAWIO = "CAP_SYS_RAWIO"
    SYS_CHROOT = "CAP_SYS_CHROOT"
    SYS_PTRACE = "CAP_SYS_PTRACE"
    SYS_PACCT = "CAP_SYS_PACCT"
    SYS_ADMIN = "CAP_SYS_ADMIN"
    SYS_BOOT = "CAP_SYS_BOOT"
    SYS_NICE = "CAP_SYS_NICE"
    SYS_RESOURCE = "CAP_SYS_RESOURCE"
    SYS_TIME = "CAP_SYS_TIME"
    SYS_TTY_CONFIG = "CAP_SYS_TTY_CONFIG"
    MKNOD = "CAP_MKNOD"
    LEASE = "CAP_LEASE"
    AUDIT_WRITE = "CAP_AUDIT_WRITE"
    AUDIT_CONTROL = "CAP_AUDIT_CONTROL"
    SETFCAP = "CAP_SETFCAP"
    MAC_OVERRIDE = "CAP_MAC_OVERRIDE"
    MAC_ADMIN = "CAP_MAC_ADMIN"
    SYSLOG = "CAP_SYSLOG"
    WAKE_ALARM = "CAP_WAKE_ALARM"
    BLOCK_SUSPEND = "CAP_BLOCK_SUSPEND"
    AUDIT_READ = "CAP_AUDIT_READ"
    PERFMON = "CAP_PERFMON"
    BPF = "CAP_BPF"
    CHECKPOINT_RESTORE = "CAP_CHECKPOINT_RESTORE"

    @classmethod
    def parse(cls, text: str) -> Capability:
        """Read a name in any case, with or without `CAP_`; raises `InvalidInputError`."""
        found = cls.__members__.get(text.strip().upper().removeprefix("CAP_"))
        if found is None:
            raise InvalidInputError(
                f"{text!r} is not a capability", value=text, hint="as NET_ADMIN; see capabilities(7)"
            )
        return found


_NUMBERS = {capability: number for number, capability in enumerate(Capability)}

# What Docker, Podman (before 4) and containerd give a container by default.
_DEFAULT_OCI = (
    Capability.CHOWN,
    Capability.DAC_OVERRIDE,
    Capability.FSETID,
    Capability.FOWNER,
    Capability.MKNOD,
    Capability.NET_RAW,
    Capability.SETGID,
    Capability.SETUID,
    Capability.SETFCAP,
    Capability.SETPCAP,
    Capability.NET_BIND_SERVICE,
    Capability.SYS_CHROOT,
    Capability.KILL,
    Capability.AUDIT_WRITE,
)


@dataclass(frozen=True, slots=True)
class LinuxCapabilities:
    """The five sets of a process, each in the order of the capabilities' numbers, without doubles."""

    bounding: tuple[Capability, ...] = ()
    effective: tuple[Capability, ...] = ()
    inheritable: tuple[Capability, ...] = ()
    permitted: tuple[Capability, ...] = ()
    ambient: tuple[Capability, ...] = ()

    def __post_init__(self) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, _ordered(getattr(self, name)))

    @classmethod
    def default_oci(cls) -> Self:
        """The 14 that Docker gives: bounding, effective and permitted; none inheritable or ambient."""
        return cls.of(_DEFAULT_OCI)

    @classmethod
    def all(cls) -> Self:
        """Every capability: what `--privileged` and `--cap-add ALL` mean."""
        return cls.of(Capability)

    @classmethod
    def empty(cls) -> Self:
        """None at all."""
        return cls()

    @classmethod
    def of(cls, capabilities: Iterable[Capability | str]) -> Self:
        """`capabilities` as bounding, effective and permitted sets, as Docker does it."""
        held = _ordered(capabilities)
        return cls(bounding=held, effective=held, permitted=held)

    @classmethod
    def single_set(cls, capabilities: Iterable[Capability | str]) -> Self:
        """`capabilities` in all five sets, so that they survive a change of user and an exec."""
        held = _ordered(capabilities)
        return cls(held, held, held, held, held)

    def changed(
        self, *, add: Iterable[Capability | str] = (), drop: Iterable[Capability | str] = ()
    ) -> LinuxCapabilities:
        """With `add` and without `drop`, by Docker's rules for `--cap-add` and `--cap-drop`.

        `ALL` in `drop` starts from nothing, in `add` from everything; then a name given in the other list wins over it.
        The same name in both is an error. Inheritable and ambient sets lose what is dropped and gain nothing.
        Raises `InvalidInputError`.
        """
        adds, all_added = _names(add)
        drops, all_dropped = _names(drop)
        if both := adds & drops:
            raise InvalidInputError(
                f"{', '.join(sorted(both))} is both added and dropped", value=tuple(sorted(both)), hint="give it once"
            )
        if all_added and all_dropped:
            raise InvalidInputError("ALL is both added and dropped", value="ALL", hint="give it once")

        def change(held: tuple[Capability, ...], may_gain: bool) -> set[Capability]:
            kept = set() if all_dropped else set(held)
            if may_gain:
                kept |= set(Capability) if all_added else adds
            return kept - drops

        return LinuxCapabilities(
            bounding=tuple(change(self.bounding, True)),
            effective=tuple(change(self.effective, True)),
            inheritable=tuple(change(self.inheritable, False)),
            permitted=tuple(change(self.permitted, True)),
            ambient=tuple(change(self.ambient, False)),
        )


def _ordered(capabilities: Iterable[Capability | str]) -> tuple[Capability, ...]:
    held = {item if isinstance(item, Capability) else Capability.parse(item) for item in capabilities}
    return tuple(sorted(held, key=_NUMBERS.__getitem__))


def _names(items: Iterable[Capability | str]) -> tuple[set[Capability], bool]:
    names: set[Capability] = set()
    everything = False
    for item in items:
        if not isinstance(item, Capability) and item.strip().upper() in ("ALL", "CAP_ALL"):
            everything = True
        else:
            names.add(item if isinstance(item, Capability) else Capability.parse(item))
    return names, everything
