"""Docker's seccomp JSON, read into `firkin.core.seccomp`'s types. Unknown keys are errors: a rule misread is a hole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from firkin.core.seccomp import (
    Seccomp,
    SeccompAction,
    SeccompArch,
    SeccompArgRule,
    SeccompCondition,
    SeccompFlag,
    SeccompOp,
    SeccompSyscallRule,
)
from firkin.errors import InvalidInputError
from firkin.types import Capability

__all__ = ["read"]

_PROFILE_KEYS = frozenset(
    ("defaultAction", "defaultErrno", "defaultErrnoRet", "architectures", "archMap", "flags", "syscalls")
)
_RULE_KEYS = frozenset(("name", "names", "action", "args", "errno", "errnoRet", "includes", "excludes", "comment"))
_ARG_KEYS = frozenset(("index", "value", "valueTwo", "op"))
_CONDITION_KEYS = frozenset(("caps", "arches", "minKernel"))
_MOST_RULES = 4096

_Member = TypeVar("_Member", SeccompAction, SeccompArch, SeccompFlag, SeccompOp)


def read(document: Any) -> Seccomp:
    """The profile of a JSON document. Raises `InvalidInputError` that names the wrong part."""
    profile = _object(document, "the profile", _PROFILE_KEYS)
    if "defaultAction" not in profile:
        raise InvalidInputError("the seccomp profile has no defaultAction", value=document)
    rules = _list(profile, "syscalls")
    if len(rules) > _MOST_RULES:
        raise InvalidInputError(
            f"the seccomp profile has {len(rules)} rules", value=len(rules), hint=f"at most {_MOST_RULES}"
        )
    return Seccomp(
        default_action=_member(SeccompAction, profile["defaultAction"]),
        syscalls=tuple(_rule(rule) for rule in rules),
        arches=_arches(profile),
        default_errno_ret=_errno(profile, "defaultErrnoRet"),
        flags=tuple(_member(SeccompFlag, flag) for flag in _list(profile, "flags")),
    )


def _arches(profile: Mapping[str, Any]) -> tuple[SeccompArch, ...]:
    """Of `architectures`.

    An `archMap` maps each host's architecture to its further ones: what an empty tuple means here too.
    """
    for entry in _list(profile, "archMap"):
        _object(entry, "archMap", frozenset(("architecture", "subArchitectures")))
    return tuple(_member(SeccompArch, name) for name in _list(profile, "architectures"))


def _rule(document: Any) -> SeccompSyscallRule:
    rule = _object(document, "a rule", _RULE_KEYS)
    names = _texts(rule, "names") + ((str(rule["name"]),) if rule.get("name") else ())
    if not names:
        raise InvalidInputError("a seccomp rule names no system call", value=document)
    return SeccompSyscallRule(
        names=names,
        action=_member(SeccompAction, rule.get("action")),
        args=tuple(_argument(arg) for arg in _list(rule, "args")),
        errno_ret=_errno(rule, "errnoRet"),
        includes=_condition(rule.get("includes")),
        excludes=_condition(rule.get("excludes")),
    )


def _argument(document: Any) -> SeccompArgRule:
    arg = _object(document, "an argument", _ARG_KEYS)
    return SeccompArgRule(
        index=_number(arg.get("index", 0), "index"),
        op=_member(SeccompOp, arg.get("op")),
        value=_number(arg.get("value", 0), "value"),
        value_two=_number(arg.get("valueTwo", 0), "valueTwo"),
    )


def _condition(document: Any) -> SeccompCondition:
    if document is None:
        return SeccompCondition()
    condition = _object(document, "a condition", _CONDITION_KEYS)
    kernel = condition.get("minKernel")
    return SeccompCondition(
        caps=tuple(Capability.parse(name) for name in _texts(condition, "caps")),
        arches=_texts(condition, "arches"),
        min_kernel=_kernel(kernel) if kernel is not None else None,
    )


def _kernel(text: Any) -> tuple[int, int]:
    parts = str(text).split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        raise InvalidInputError(f"{text!r} is not a version of the kernel", value=text, hint="as 4.8")
    return int(parts[0]), int(parts[1])


def _object(document: Any, what: str, keys: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise InvalidInputError(f"{what} of a seccomp profile is not an object", value=document)
    if unknown := sorted(set(document) - keys):
        raise InvalidInputError(f"{what} of a seccomp profile has an unknown key {unknown[0]!r}", value=document)
    return document


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    found = document.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise InvalidInputError(f"{key} in a seccomp profile is not a list", value=found)
    return found


def _texts(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = _list(document, key)
    if not all(isinstance(item, str) and item for item in found):
        raise InvalidInputError(f"{key} in a seccomp profile holds something else than names", value=found)
    return tuple(found)


def _number(value: Any, key: str) -> int:
    if type(value) is not int:
        raise InvalidInputError(f"{key} in a seccomp profile is not a whole number", value=value)
    return value


def _errno(document: Mapping[str, Any], key: str) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if not 0 <= _number(value, key) <= 0xFFFF:
        raise InvalidInputError(f"{key} in a seccomp profile is out of range", value=value, hint="0 to 65535")
    return int(value)


def _member(kind: type[_Member], value: Any) -> _Member:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(member.value for member in kind)
        raise InvalidInputError(
            f"{value!r} is unknown in a seccomp profile", value=value, hint=f"one of {known}"
        ) from error
