"""Seccomp profiles, typed or in Docker's JSON.

Source of the JSON: https://docs.docker.com/engine/security/seccomp/ and containers-common's seccomp.json(5):
`defaultAction`, `defaultErrnoRet`, `archMap`, `flags`, `syscalls` with `names`, `action`, `errnoRet`, `args`,
`includes`, `excludes`. The `linux.seccomp` object of an OCI runtime specification (`architectures`, no conditions) is
read too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types import Capability

__all__ = [
    "Seccomp",
    "SeccompAction",
    "SeccompArch",
    "SeccompArgRule",
    "SeccompCondition",
    "SeccompFlag",
    "SeccompOp",
    "SeccompSyscallRule",
]

# Docker's own is 15 KB; a profile is read into memory whole.
_LARGEST_PROFILE = 1 << 20


class SeccompAction(StrEnum):
    """What becomes of a system call (seccomp(2)). `NOTIFY` is refused: nobody in the guest would answer."""

    KILL = "SCMP_ACT_KILL"
    KILL_PROCESS = "SCMP_ACT_KILL_PROCESS"
    KILL_THREAD = "SCMP_ACT_KILL_THREAD"
    TRAP = "SCMP_ACT_TRAP"
    ERRNO = "SCMP_ACT_ERRNO"
    TRACE = "SCMP_ACT_TRACE"
    LOG = "SCMP_ACT_LOG"
    ALLOW = "SCMP_ACT_ALLOW"


class SeccompArch(StrEnum):
    """Architectures whose system calls a guest's kernel takes; calls of one not in the filter kill."""

    X86_64 = "SCMP_ARCH_X86_64"
    X86 = "SCMP_ARCH_X86"
    X32 = "SCMP_ARCH_X32"
    AARCH64 = "SCMP_ARCH_AARCH64"
    ARM = "SCMP_ARCH_ARM"


class SeccompFlag(StrEnum):
    """Flags of seccomp(2)'s SECCOMP_SET_MODE_FILTER."""

    TSYNC = "SECCOMP_FILTER_FLAG_TSYNC"
    LOG = "SECCOMP_FILTER_FLAG_LOG"
    SPEC_ALLOW = "SECCOMP_FILTER_FLAG_SPEC_ALLOW"


class SeccompOp(StrEnum):
    """How an argument is compared, seccomp_rule_add(3). `MASKED_EQUAL`: argument & value == value_two."""

    NOT_EQUAL = "SCMP_CMP_NE"
    LESS_THAN = "SCMP_CMP_LT"
    LESS_EQUAL = "SCMP_CMP_LE"
    EQUAL = "SCMP_CMP_EQ"
    GREATER_EQUAL = "SCMP_CMP_GE"
    GREATER_THAN = "SCMP_CMP_GT"
    MASKED_EQUAL = "SCMP_CMP_MASKED_EQ"


@dataclass(frozen=True, slots=True)
class SeccompArgRule:
    """A condition on the argument of number `index`, 0 to 5; values are unsigned 64 bit. Raises `InvalidInputError`."""

    index: int
    op: SeccompOp
    value: int
    value_two: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index <= 5:
            raise InvalidInputError(f"a system call has no argument {self.index}", value=self.index, hint="0 to 5")
        for value in (self.value, self.value_two):
            if not 0 <= value < 1 << 64:
                raise InvalidInputError(f"the seccomp value {value} does not fit in 64 bit", value=value)


@dataclass(frozen=True, slots=True)
class SeccompCondition:
    """When a rule counts: all of `caps` are held (to exclude: any of them), the architecture is one of `arches`
    (Docker's names), the guest's kernel is at least `min_kernel`.
    """

    caps: tuple[Capability, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SeccompSyscallRule:
    """One action for the calls of `names` whose arguments meet all of `args`; `errno_ret` for ERRNO and TRACE."""

    names: tuple[str, ...]
    action: SeccompAction = SeccompAction.ALLOW
    args: tuple[SeccompArgRule, ...] = ()
    errno_ret: int | None = None
    includes: SeccompCondition = SeccompCondition()
    excludes: SeccompCondition = SeccompCondition()


@dataclass(frozen=True, slots=True)
class Seccomp:
    """A profile.

    `arches` empty: the guest's, with those whose programs it runs too (x86 and x32 on x86-64, arm on arm64).
    """

    default_action: SeccompAction
    syscalls: tuple[SeccompSyscallRule, ...] = ()
    arches: tuple[SeccompArch, ...] = ()
    default_errno_ret: int | None = None
    flags: tuple[SeccompFlag, ...] = ()

    @classmethod
    def from_json(cls, text: str | bytes | Mapping[str, Any]) -> Seccomp:
        """Read a profile. Raises `InvalidInputError` that names the wrong part, an unknown key too."""
        if isinstance(text, (str, bytes)):
            if len(text) > _LARGEST_PROFILE:
                raise InvalidInputError(
                    "the seccomp profile is too long", value=len(text), hint=f"at most {_LARGEST_PROFILE} bytes"
                )
            try:
                document = json.loads(text)
            except ValueError as error:
                raise InvalidInputError(f"the seccomp profile is not JSON: {error}", value=text) from error
        else:
            document = text
        from firkin.core import seccomp_json

        return seccomp_json.read(document)

    @classmethod
    def load(cls, path: str | Path) -> Seccomp:
        """Read a profile's file. Raises `InvalidInputError`."""
        try:
            with Path(path).open("rb") as file:
                content = file.read(_LARGEST_PROFILE + 1)
        except OSError as error:
            raise InvalidInputError(
                f"the seccomp profile {path} can't be read: {error.strerror}", value=str(path)
            ) from error
        return cls.from_json(content)

    @classmethod
    def allow_all_but(cls, names: Iterable[str], *, errno_ret: int = 1) -> Seccomp:
        """A profile that refuses `names` with `errno_ret` (EPERM) and allows the rest."""
        rule = SeccompSyscallRule(tuple(names), SeccompAction.ERRNO, errno_ret=errno_ret)
        return cls(SeccompAction.ALLOW, (rule,))
