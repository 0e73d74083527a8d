"""Profiles in Docker's JSON and as typed values, compiled: conditions, arguments, newer calls, and wrong ones."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from firkin.core.bpf_shrink import shrink
from firkin.core.libseccomp import Comparison, Rule, compile_rules, known_syscalls
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
from firkin.core.seccomp_cache import default_profile
from firkin.core.seccomp_compile import compile_profile
from firkin.errors import InvalidInputError
from firkin.types import Capability
from tests.core.bpf import AARCH64, ALLOW, ARM, ENOSYS, EPERM, ERRNO, KILL, X32_BIT, X86, X86_64, parse, run

NONE: frozenset[Capability] = frozenset()
READ, MOUNT, PERSONALITY = 0, 165, 135


def profile(*rules: dict[str, Any], default: str = "SCMP_ACT_ERRNO", **more: Any) -> Seccomp:
    return Seccomp.from_json(json.dumps({"defaultAction": default, "syscalls": list(rules), **more}))


def answer(
    seccomp: Seccomp, number: int, *args: int, held: frozenset[Capability] = NONE, kernel: tuple[int, int] = (6, 1)
) -> int:
    program = compile_profile(seccomp, architecture="amd64", capabilities=held, kernel=kernel)
    return run(parse(program.bpf), X86_64, number, *args)


ALLOW_READ = {"names": ["read", "personality", "exit_group"], "action": "SCMP_ACT_ALLOW"}


def test_names_actions_and_errnos() -> None:
    deny = {"names": ["mount", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    seccomp = profile(ALLOW_READ, deny, {"name": "ptrace", "action": "SCMP_ACT_KILL_PROCESS"})
    assert answer(seccomp, READ) == ALLOW
    assert answer(seccomp, MOUNT) == ERRNO | 95
    assert answer(seccomp, 101) == 0x8000_0000
    assert answer(seccomp, 1) == EPERM
    assert answer(profile(ALLOW_READ, defaultErrnoRet=13), 1) == ERRNO | 13


def test_a_call_newer_than_the_profile_is_not_there_rather_than_forbidden() -> None:
    seccomp = profile(ALLOW_READ)
    assert answer(seccomp, 230) == EPERM
    assert answer(seccomp, 232) == ENOSYS
    assert answer(seccomp, X32_BIT | 400) == EPERM
    assert answer(profile(default="SCMP_ACT_ALLOW"), 999) == ALLOW
    assert answer(profile(ALLOW_READ, default="SCMP_ACT_LOG"), 999) == 0x7FFC_0000


@pytest.mark.parametrize(
    ("op", "met", "unmet"),
    [
        ("SCMP_CMP_NE", 6, 5),
        ("SCMP_CMP_LT", 4, 5),
        ("SCMP_CMP_LE", 5, 6),
        ("SCMP_CMP_EQ", 5, 1 << 32 | 5),
        ("SCMP_CMP_GE", 5, 4),
        ("SCMP_CMP_GT", 1 << 40, 5),
    ],
)
def test_arguments_are_compared_in_64_bit(op: str, met: int, unmet: int) -> None:
    rule = {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 5, "op": op}]}
    assert answer(profile(rule), PERSONALITY, met) == ALLOW
    assert answer(profile(rule), PERSONALITY, unmet) == EPERM


def test_masks_and_several_arguments() -> None:
    masked = {"index": 1, "value": 0xF0, "valueTwo": 0x30, "op": "SCMP_CMP_MASKED_EQ"}
    first = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}
    rule = {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [first, masked]}
    assert answer(profile(rule), PERSONALITY, 1, 0xFF3F) == ALLOW
    assert answer(profile(rule), PERSONALITY, 2, 0x30) == EPERM
    assert answer(profile(rule), PERSONALITY, 1, 0x20) == EPERM


def test_one_argument_compared_twice_means_either_as_in_runc() -> None:
    either = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    rule = {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": either}
    assert [answer(profile(rule), PERSONALITY, value) for value in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]


BPF_, SYSLOG = Capability.BPF, Capability.SYSLOG


@pytest.mark.parametrize(
    ("conditions", "held", "kernel", "counts"),
    [
        ({"includes": {"caps": ["CAP_BPF", "CAP_SYSLOG"]}}, {BPF_, SYSLOG}, (6, 1), True),
        ({"includes": {"caps": ["CAP_BPF", "CAP_SYSLOG"]}}, {BPF_}, (6, 1), False),
        ({"excludes": {"caps": ["CAP_BPF", "CAP_SYSLOG"]}}, {BPF_}, (6, 1), False),
        ({"excludes": {"caps": ["CAP_BPF"]}}, {SYSLOG}, (6, 1), True),
        ({"includes": {"arches": ["amd64", "x32"]}}, set(), (6, 1), True),
        ({"includes": {"arches": ["arm64"]}}, set(), (6, 1), False),
        ({"excludes": {"arches": ["amd64"]}}, set(), (6, 1), False),
        ({"includes": {"minKernel": "4.8"}}, set(), (4, 7), False),
        ({"includes": {"minKernel": "4.8"}}, set(), (4, 10), True),
        ({"excludes": {"minKernel": "4.8"}}, set(), (5, 0), False),
    ],
)
def test_conditions(conditions: dict[str, Any], held: set[Capability], kernel: tuple[int, int], counts: bool) -> None:
    seccomp = profile(ALLOW_READ | conditions)
    # A profile of which no rule counts still knows its names; what it does not name is newer than it.
    assert (answer(seccomp, READ, held=frozenset(held), kernel=kernel) == ALLOW) is counts


def test_architectures_given_are_those_of_the_filter() -> None:
    seccomp = profile(ALLOW_READ, architectures=["SCMP_ARCH_X86_64"])
    program = parse(compile_profile(seccomp, architecture="amd64", capabilities=NONE, kernel=(6, 1)).bpf)
    assert run(program, X86_64, READ) == ALLOW
    assert run(program, X86, 3) == KILL
    both = parse(compile_profile(profile(ALLOW_READ), architecture="amd64", capabilities=NONE, kernel=(6, 1)).bpf)
    assert run(both, X86, 3) == ALLOW


def test_flags_become_the_kernels() -> None:
    flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    seccomp = profile(ALLOW_READ, flags=flags)
    assert seccomp.flags == (SeccompFlag.LOG, SeccompFlag.SPEC_ALLOW)
    assert compile_profile(seccomp, architecture="amd64", capabilities=NONE, kernel=(6, 1)).flags == 6


def test_typed_and_json_are_the_same() -> None:
    typed = Seccomp(
        SeccompAction.ERRNO,
        (
            SeccompSyscallRule(
                ("read",),
                SeccompAction.ALLOW,
                (SeccompArgRule(0, SeccompOp.EQUAL, 3),),
                includes=SeccompCondition(caps=(Capability.BPF,)),
            ),
        ),
        (SeccompArch.X86_64,),
        5,
    )
    rule = {
        "names": ["read"],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 3, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
        "includes": {"caps": ["CAP_BPF"]},
    }
    assert profile(rule, architectures=["SCMP_ARCH_X86_64"], defaultErrnoRet=5) == typed
    assert answer(Seccomp.allow_all_but(["mount"]), MOUNT) == EPERM
    assert answer(Seccomp.allow_all_but(["mount"]), READ) == ALLOW


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "the profile of a seccomp profile is not an object"),
        ("{}", "no defaultAction"),
        ('{"defaultAction": "NO"}', "'NO' is unknown"),
        ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "SCMP_ACT_NOTIFY"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "extra": 1}', "unknown key 'extra'"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}', "syscalls in a seccomp profile is not a list"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [1]}]}', "names in a seccomp profile"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_KILL"}]}', "names no system call"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 70000}', "out of range"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": true}', "not a whole number"),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",'
            '"args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}',
            "no argument 6",
        ),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",'
            '"includes":{"minKernel":"new"}}]}',
            "not a version of the kernel",
        ),
        ('{"defaultAction": "SCMP_ACT_ALLOW"' + " " * (1 << 20) + "}", "too long"),
    ],
)
def test_wrong_profiles_are_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        Seccomp.from_json(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="can't be read: No such file"):
        Seccomp.load(tmp_path / "none.json")
    good = tmp_path / "p.json"
    good.write_text('{"defaultAction": "SCMP_ACT_KILL"}')
    assert Seccomp.load(good).default_action is SeccompAction.KILL


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(InvalidInputError, match="no seccomp filter can be made for vax"):
        compile_profile(profile(), architecture="vax", capabilities=NONE, kernel=(6, 1))


@pytest.mark.parametrize(("architecture", "arch"), [("amd64", X86_64), ("arm64", AARCH64)])
def test_either_machine_is_compiled_for_on_this_one(architecture: str, arch: int) -> None:
    program = compile_profile(default_profile(), architecture=architecture, capabilities=NONE, kernel=(6, 1))
    assert run(parse(program.bpf), arch, known_syscalls(arch, ["read"])["read"]) == ALLOW


RULES = ["read", "write", "mount", "clone", "socket", "personality", "ioctl", "prctl", "keyctl", "set_tls", "stat64"]
ARGS = [0, 1, 2, 5, 40, 0x7E020000, 0x10000000, 1 << 32, (1 << 32) | 5, (1 << 64) - 1]


@pytest.mark.parametrize("seed", range(12))
def test_a_shortened_filter_decides_as_the_one_of_libseccomp(seed: int) -> None:
    choose = random.Random(seed)
    rules = []
    for name in choose.sample(RULES, 8):
        comparisons = [
            (Comparison(index, choose.randint(1, 7), choose.choice(ARGS), choose.choice(ARGS)),)
            for index in choose.sample(range(3), choose.randint(0, 2))
        ] or [()]
        action = choose.choice([ALLOW, EPERM, ENOSYS, KILL])
        rules += [Rule(action, name, each) for each in comparisons]
    arches = choose.choice([(X86_64,), (X86_64, X86, 0x4000003E), (AARCH64, ARM)])
    default = choose.choice([0x7FFC_0000, ERRNO | 13])
    old = compile_rules(default, rules, arches)
    check_alike(old, shrink(old), choose)


def test_a_long_filter_is_shortened_alike_and_a_lot() -> None:
    names = known_syscalls(X86_64, {name for rule in default_profile().syscalls for name in rule.names})
    choose = random.Random(99)
    rules = [Rule(choose.choice([ALLOW, EPERM, ENOSYS]), name) for name in names]
    old = compile_rules(KILL, rules, (X86_64, X86, 0x4000003E))
    check_alike(old, shrink(old), choose)
    alike = compile_rules(KILL, [Rule(ALLOW, name) for name in names], (X86_64, X86, 0x4000003E))
    assert len(shrink(alike)) < len(alike) / 3


def check_alike(old: bytes, new: bytes, choose: random.Random) -> None:
    first, second = parse(old), parse(new)
    assert len(second) <= len(first)
    edges = {k + step & 0xFFFF_FFFF for _, _, _, k in first for step in (-1, 0, 1)} | {0, 0x7FFF_FFFF}
    for arch in (X86_64, X86, AARCH64, ARM, 0, 0xFFFF_FFFF):
        for number in edges:
            args = [choose.choice(ARGS) for _ in range(6)]
            assert run(first, arch, number, *args) == run(second, arch, number, *args), (hex(arch), number, args)


def test_what_is_not_understood_is_left_alone() -> None:
    masked = b"".join(
        [
            b"\x20\x00\x00\x00\x00\x00\x00\x00",  # load the number
            b"\x54\x00\x00\x00\x01\x00\x00\x00",  # and 1
            b"\x15\x00\x00\x01\x01\x00\x00\x00",  # odd?
            b"\x06\x00\x00\x00\x00\x00\xff\x7f",
            b"\x06\x00\x00\x00\x00\x00\x00\x00",
        ]
    )
    assert shrink(masked) == masked


@pytest.mark.parametrize(
    ("default", "rules", "arches", "says"),
    [
        (0x12345, [], (X86_64,), "the default action 0x12345"),
        (ALLOW, [], (0x1,), "the architecture 0x1"),
        (ALLOW, [Rule(0x12345, "read")], (X86_64,), "the rule for read"),
        (
            ALLOW,
            [Rule(KILL, "read", (Comparison(0, 4, number << 32 | number, 0),)) for number in range(4000)],
            (X86_64,),
            "too long for the kernel",
        ),
    ],
)
def test_what_the_library_refuses_is_named(default: int, rules: list[Rule], arches: tuple[int, ...], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        compile_rules(default, rules, arches)
