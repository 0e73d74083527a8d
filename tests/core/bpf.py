"""A classic BPF interpreter for seccomp filters: what the kernel's does, in `kernel/bpf/core.c` and `kernel/seccomp.c`.

Instructions of linux/bpf_common.h; `struct seccomp_data` of linux/seccomp.h.
"""

from __future__ import annotations

import struct

ALLOW, ERRNO, KILL = 0x7FFF_0000, 0x0005_0000, 0
EPERM, ENOSYS = ERRNO | 1, ERRNO | 38
X86_64, X86, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
X32_BIT = 0x4000_0000
Program = list[tuple[int, int, int, int]]


def parse(program: bytes) -> Program:
    return list(struct.iter_unpack("=HBBI", program))


def run(program: Program, arch: int, number: int, *args: int) -> int:
    """The filter's answer for a system call; arguments not given are 0."""
    padded = (*args, *(0,) * (6 - len(args)))
    data = struct.pack("=IIQ6Q", number, arch, 0, *padded)
    place = value = 0
    for _ in range(len(program)):  # jumps only go forward
        code, on_true, on_false, k = program[place]
        place += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (value,) = struct.unpack_from("=I", data, k)
        elif code == 0x06:  # BPF_RET | BPF_K
            return k
        elif code == 0x05:  # BPF_JMP | BPF_JA
            place += k
        elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            value &= k
        elif code in (0x15, 0x25, 0x35, 0x45):  # BPF_JMP | JEQ, JGT, JGE, JSET | BPF_K
            met = {0x15: value == k, 0x25: value > k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            place += on_true if met else on_false
        else:
            raise AssertionError(f"instruction {code:#x} is not in a filter")
    raise AssertionError("the filter does not return")
