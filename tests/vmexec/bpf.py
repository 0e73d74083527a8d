"""Seccomp programs of a few lines, assembled here so that the test does not depend on the compiler it would judge."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

# asm/unistd_64.h
NUMBERS = {
    "getpid": 39,
    "chmod": 90,
    "mkdir": 83,
    "keyctl": 250,
    "personality": 135,
    "sethostname": 170,
    "unshare": 272,
}
ARCH_X86_64 = 0xC000003E  # linux/audit.h
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h: LD|W|ABS, JMP|JEQ|K, RET|K
ACTIONS = {  # linux/seccomp.h
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
}


def annotations(default: str, rules: Mapping[str, tuple[str, int]], flags: int = 0) -> dict[str, str]:
    """What vmexec takes: `rules` give an action and errno by name of system call."""
    program = [(LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, ARCH_X86_64), (RETURN, 0, 0, ACTIONS["SCMP_ACT_KILL_PROCESS"])]
    program += [(LOAD, 0, 0, 0)]
    for name, (action, errno) in rules.items():
        program += [(JUMP_EQUAL, 0, 1, NUMBERS[name]), (RETURN, 0, 0, ACTIONS[action] | errno)]
    program += [(RETURN, 0, 0, ACTIONS[default])]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    return {"dev.firkin.seccomp.bpf": base64.b64encode(code).decode(), "dev.firkin.seccomp.flags": str(flags)}


def profile(default: str, rules: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """The same as `linux.seccomp`, which crun compiles with libseccomp."""
    syscalls = [
        {"names": [name], "action": action, **({"errnoRet": errno} if action == "SCMP_ACT_ERRNO" else {})}
        for name, (action, errno) in rules.items()
    ]
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": syscalls}
