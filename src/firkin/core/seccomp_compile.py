"""A seccomp profile, for one architecture and one set of capabilities, to BPF."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from firkin.core.bpf_shrink import shrink
from firkin.core.libseccomp import Comparison, Rule, compile_rules, known_syscalls
from firkin.core.lowering import SeccompProgram
from firkin.core.seccomp import (
    Seccomp,
    SeccompAction,
    SeccompArch,
    SeccompCondition,
    SeccompFlag,
    SeccompOp,
    SeccompSyscallRule,
)
from firkin.errors import InvalidInputError
from firkin.types import Capability

__all__ = ["compile_profile", "translate"]

_EPERM, _ENOSYS = 1, 38

# linux/audit.h: EM_* (linux/elf-em.h) with __AUDIT_ARCH_64BIT and __AUDIT_ARCH_LE. x32 is libseccomp's own token.
_AUDIT_ARCH = {
    SeccompArch.X86_64: 0xC000003E,
    SeccompArch.X86: 0x40000003,
    SeccompArch.X32: 0x4000003E,
    SeccompArch.AARCH64: 0xC00000B7,
    SeccompArch.ARM: 0x40000028,
}
# What the kernel of a guest runs, by the guest's OCI name.
_ARCHES = {
    "amd64": (SeccompArch.X86_64, SeccompArch.X86, SeccompArch.X32),
    "arm64": (SeccompArch.AARCH64, SeccompArch.ARM),
}
# seccomp.h: SCMP_ACT_*; linux/seccomp.h has the same numbers as SECCOMP_RET_*.
_ACTIONS = {
    SeccompAction.KILL: 0x0000_0000,
    SeccompAction.KILL_THREAD: 0x0000_0000,
    SeccompAction.KILL_PROCESS: 0x8000_0000,
    SeccompAction.TRAP: 0x0003_0000,
    SeccompAction.ERRNO: 0x0005_0000,
    SeccompAction.TRACE: 0x7FF0_0000,
    SeccompAction.LOG: 0x7FFC_0000,
    SeccompAction.ALLOW: 0x7FFF_0000,
}
# seccomp.h: enum scmp_compare.
_OPS = {
    SeccompOp.NOT_EQUAL: 1,
    SeccompOp.LESS_THAN: 2,
    SeccompOp.LESS_EQUAL: 3,
    SeccompOp.EQUAL: 4,
    SeccompOp.GREATER_EQUAL: 5,
    SeccompOp.GREATER_THAN: 6,
    SeccompOp.MASKED_EQUAL: 7,
}
# linux/seccomp.h: SECCOMP_FILTER_FLAG_*.
_FLAGS = {SeccompFlag.TSYNC: 1, SeccompFlag.LOG: 2, SeccompFlag.SPEC_ALLOW: 4}


def compile_profile(
    profile: Seccomp, *, architecture: str, capabilities: frozenset[Capability], kernel: tuple[int, int]
) -> SeccompProgram:
    """The filter of `profile` for a process that holds `capabilities` (its bounding set).

    `architecture` (OCI's name) and `kernel` are the guest's. Raises `InvalidInputError` for a profile that makes no
    filter, `FirkinError` where libseccomp is missing.
    """
    program = translate(profile, architecture=architecture, capabilities=capabilities, kernel=kernel)
    return SeccompProgram(shrink(program), sum({_FLAGS[flag] for flag in profile.flags}))


def translate(
    profile: Seccomp, *, architecture: str, capabilities: frozenset[Capability], kernel: tuple[int, int]
) -> bytes:
    """The program of `compile_profile` as libseccomp writes it, not yet shortened. Raises `InvalidInputError`."""
    if architecture not in _ARCHES:
        raise InvalidInputError(f"no seccomp filter can be made for {architecture}", value=architecture)
    arches = tuple(_AUDIT_ARCH[arch] for arch in profile.arches or _ARCHES[architecture])
    default = _action(profile.default_action, profile.default_errno_ret)
    counting = [rule for rule in profile.syscalls if _counts(rule, architecture, capabilities, kernel)]
    program = compile_rules(default, _rules(counting, profile.default_errno_ret), arches)
    lets_through = profile.default_action in (SeccompAction.ALLOW, SeccompAction.LOG)
    if lets_through or default == _ACTIONS[SeccompAction.ERRNO] | _ENOSYS:
        return program
    return _newer_than_known(arches, profile) + program


def _counts(
    rule: SeccompSyscallRule, architecture: str, capabilities: frozenset[Capability], kernel: tuple[int, int]
) -> bool:
    wanted, unwanted = rule.includes, rule.excludes
    if wanted.arches and architecture not in wanted.arches:
        return False
    if not capabilities.issuperset(wanted.caps) or (wanted.min_kernel and kernel < wanted.min_kernel):
        return False
    return not _excluded(unwanted, architecture, capabilities, kernel)


def _excluded(
    unwanted: SeccompCondition, architecture: str, capabilities: frozenset[Capability], kernel: tuple[int, int]
) -> bool:
    if architecture in unwanted.arches or not capabilities.isdisjoint(unwanted.caps):
        return True
    return unwanted.min_kernel is not None and kernel >= unwanted.min_kernel


def _rules(rules: Iterable[SeccompSyscallRule], default_errno: int | None) -> Iterator[Rule]:
    for rule in rules:
        action = _action(rule.action, rule.errno_ret if rule.errno_ret is not None else default_errno)
        comparisons = tuple(Comparison(arg.index, _OPS[arg.op], arg.value, arg.value_two) for arg in rule.args)
        # libseccomp compares an argument once in a rule; runc makes a rule of each comparison then, and so do we.
        repeated = len({comparison.argument for comparison in comparisons}) < len(comparisons)
        for name in rule.names:
            if repeated:
                yield from (Rule(action, name, (comparison,)) for comparison in comparisons)
            else:
                yield Rule(action, name, comparisons)


def _action(action: SeccompAction, errno_ret: int | None) -> int:
    if action in (SeccompAction.ERRNO, SeccompAction.TRACE):
        return _ACTIONS[action] | (_EPERM if errno_ret is None else errno_ret)
    return _ACTIONS[action]


# linux/bpf_common.h: instructions are code, jt, jf, k.
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _RETURN = 0x20, 0x15, 0x25, 0x06
# struct seccomp_data: nr at 0, arch at 4.
_NUMBER_AT, _ARCH_AT = 0, 4
# asm/unistd.h of x86 (__X32_SYSCALL_BIT) and arm (__ARM_NR_BASE): numbers that are not in the one ascending table.
_X32_BIT, _PRIVATE_NUMBERS = 0x4000_0000, 0xF0000


def _newer_than_known(arches: tuple[int, ...], profile: Seccomp) -> bytes:
    """Instructions to put first: a system call newer than every one that the profile names answers ENOSYS, not its
    default.

    A C library takes ENOSYS for "not there yet" and falls back; EPERM it passes on. runc does the same for the same
    reason. An x32 call has bit 30 set in its number, so x32 is left to the filter itself.
    """
    names = {name for rule in profile.syscalls for name in rule.names}
    blocks = b""
    for arch in arches:
        numbers = [number for number in known_syscalls(arch, names).values() if number < _PRIVATE_NUMBERS]
        if not numbers or arch == _AUDIT_ARCH[SeccompArch.X32]:
            continue
        blocks += b"".join(
            struct.pack("=HBBI", *instruction)
            for instruction in (
                (_LOAD, 0, 0, _ARCH_AT),
                (_JUMP_EQUAL, 0, 4, arch),
                (_LOAD, 0, 0, _NUMBER_AT),
                (_JUMP_GREATER, 2, 0, _X32_BIT - 1),
                (_JUMP_GREATER, 0, 1, max(numbers)),
                (_RETURN, 0, 0, _ACTIONS[SeccompAction.ERRNO] | _ENOSYS),
            )
        )
    return blocks
