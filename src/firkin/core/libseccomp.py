"""libseccomp, by ctypes: rules in, BPF out. The only place that knows its C interface (seccomp.h, version 2.5).

No published binding does: pyseccomp asks the linker's cache through subprocesses at import and reads syscall names
through a wrong type.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from firkin.errors import FirkinError, InvalidInputError

__all__ = ["Comparison", "Rule", "compile_rules", "known_syscalls"]

_LIBRARY = "libseccomp.so.2"

# enum scmp_filter_attr.
_ATTR_ACT_BADARCH, _ATTR_OPTIMIZE = 2, 8
_BINARY_TREE = 2
# __NR_SCMP_ERROR: no such name anywhere.
_NO_SYSCALL = -1
# BPF_MAXINSNS (linux/bpf_common.h) instructions of 8 bytes.
_LARGEST_PROGRAM = 4096 * 8


class Comparison(NamedTuple):
    """`struct scmp_arg_cmp`: the argument's number, enum scmp_compare, and its values."""

    argument: int
    op: int
    value: int
    value_two: int


class Rule(NamedTuple):
    """An action (SCMP_ACT_* as seccomp.h encodes it) for one system call under all of `comparisons`."""

    action: int
    syscall: str
    comparisons: tuple[Comparison, ...] = ()


class _ArgCmp(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@cache
def _load(name: str = _LIBRARY) -> Any:
    """The library with its functions' types. Raises `FirkinError` where it is not installed."""
    try:
        library = ctypes.CDLL(name, use_errno=True)
    except OSError as error:
        raise FirkinError(
            f"seccomp filters can't be compiled: {name} is missing",
            hint="install libseccomp2, or choose --security-opt seccomp=unconfined",
        ) from error
    pointer, uint32, integer = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int
    for name, result, arguments in (
        ("seccomp_init", pointer, (uint32,)),
        ("seccomp_release", None, (pointer,)),
        ("seccomp_arch_add", integer, (pointer, uint32)),
        ("seccomp_arch_remove", integer, (pointer, uint32)),
        ("seccomp_arch_native", uint32, ()),
        ("seccomp_attr_set", integer, (pointer, integer, uint32)),
        ("seccomp_syscall_resolve_name", integer, (ctypes.c_char_p,)),
        ("seccomp_syscall_resolve_name_arch", integer, (uint32, ctypes.c_char_p)),
        ("seccomp_rule_add_array", integer, (pointer, uint32, integer, ctypes.c_uint, ctypes.POINTER(_ArgCmp))),
        ("seccomp_export_bpf", integer, (pointer, integer)),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def known_syscalls(arch: int, names: Iterable[str]) -> dict[str, int]:
    """The numbers of those `names` that the architecture (AUDIT_ARCH_*) has and the library knows."""
    resolve = _load().seccomp_syscall_resolve_name_arch
    numbers = {name: resolve(arch, name.encode()) for name in names}
    return {name: number for name, number in numbers.items() if number >= 0}


def compile_rules(
    default_action: int, rules: Iterable[Rule], arches: tuple[int, ...], *, library: str = _LIBRARY
) -> bytes:
    """`struct sock_filter[]` for the AUDIT_ARCH_* of `arches`; a call of any other architecture kills the thread.

    A rule whose system call the library does not know, or whose action is the default anyway, is left out, as runc
    does. Raises `InvalidInputError` for rules that contradict each other or make a program beyond the kernel's limit.
    """
    loaded = _load(library)
    context = loaded.seccomp_init(default_action)
    if not context:
        raise InvalidInputError(f"libseccomp refuses the default action {default_action:#x}", value=default_action)
    try:
        _set_arches(loaded, context, arches)
        # Older libraries (before 2.5) have no binary tree: the filter is then longer on its way, not different.
        loaded.seccomp_attr_set(context, _ATTR_OPTIMIZE, _BINARY_TREE)
        for rule in rules:
            if rule.action != default_action:
                _add(loaded, context, rule)
        return _export(loaded, context)
    finally:
        loaded.seccomp_release(context)


def _set_arches(library: Any, context: int, arches: tuple[int, ...]) -> None:
    for arch in arches:
        code = library.seccomp_arch_add(context, arch)
        if code not in (0, -errno.EEXIST):
            raise _refused(f"the architecture {arch:#x}", code)
    native = library.seccomp_arch_native()
    if native not in arches:
        library.seccomp_arch_remove(context, native)


def _add(library: Any, context: int, rule: Rule) -> None:
    number = library.seccomp_syscall_resolve_name(rule.syscall.encode())
    if number == _NO_SYSCALL:
        return
    comparisons = (_ArgCmp * len(rule.comparisons))(*(_ArgCmp(*comparison) for comparison in rule.comparisons))
    code = library.seccomp_rule_add_array(context, rule.action, number, len(rule.comparisons), comparisons)
    if code:
        raise _refused(f"the rule for {rule.syscall}", code)


def _export(library: Any, context: int) -> bytes:
    with os.fdopen(os.memfd_create("firkin-seccomp", os.MFD_CLOEXEC), "rb") as file:
        code = library.seccomp_export_bpf(context, file.fileno())
        if code:
            raise _refused("the filter", code)
        file.seek(0)
        program = file.read(_LARGEST_PROGRAM + 8)
    if len(program) > _LARGEST_PROGRAM:
        raise InvalidInputError(
            "the seccomp filter is too long for the kernel", value=len(program), hint="use fewer rules"
        )
    return program


def _refused(what: str, code: int) -> InvalidInputError:
    return InvalidInputError(f"libseccomp refuses {what}: {os.strerror(-code)}", value=code, hint="check the profile")
