"""The default profile: what it lets through, what it refuses and how, on each architecture and for each capability."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path

import pytest

import firkin.core
from firkin.core.libseccomp import known_syscalls
from firkin.core.seccomp_cache import default_profile
from firkin.core.seccomp_compile import compile_profile
from firkin.types import Capability, LinuxCapabilities
from tests.core.bpf import AARCH64, ALLOW, ARM, ENOSYS, EPERM, KILL, X32_BIT, X86, X86_64, Program, parse, run

PROFILE = json.loads(Path(firkin.core.__file__).with_name("seccomp_default.json").read_text())
NAMES = {name for rule in PROFILE["syscalls"] for name in rule["names"]}
ARCHES = {"amd64": (X86_64, X86), "arm64": (AARCH64, ARM)}
FOURTEEN = frozenset(LinuxCapabilities.default_oci().bounding)


def compiled(architecture: str = "amd64", held: frozenset[Capability] = FOURTEEN) -> Program:
    program = compile_profile(default_profile(), architecture=architecture, capabilities=held, kernel=(6, 1))
    return parse(program.bpf)


DEFAULT = compiled()


def answer(name: str, *args: int, program: Program = DEFAULT, arch: int = X86_64) -> int:
    return run(program, arch, known_syscalls(arch, [name])[name], *args)


EVERYDAY = """
    read write openat close mmap brk execve fork wait4 exit_group kill futex nanosleep getrandom stat getdents64 rename
    unlinkat mkdir chmod chown setxattr epoll_wait eventfd2 bind connect accept4 sendmsg recvmsg shmget semop mq_open
    timer_create sched_setaffinity prlimit64 setuid capset prctl seccomp landlock_create_ruleset ptrace mknod statx
    memfd_create pidfd_open rseq chroot inotify_add_watch io_submit splice process_vm_readv arch_prctl
"""
# Numbers of tables for calls that no kernel has any more, or never had.
GONE = """
    afs_syscall break ftime getpmsg gtty idle lock mpx prof profil putpmsg security stty tuxcall ulimit usr26 usr32
    vserver
"""


def test_everyday_calls_are_let_through() -> None:
    refused = [name for name in EVERYDAY.split() if answer(name) != ALLOW]
    assert refused == []


NEEDS = {
    "mount": "SYS_ADMIN",
    "umount2": "SYS_ADMIN",
    "pivot_root": "SYS_ADMIN",
    "setns": "SYS_ADMIN",
    "unshare": "SYS_ADMIN",
    "sethostname": "SYS_ADMIN",
    "swapon": "SYS_ADMIN",
    "fsopen": "SYS_ADMIN",
    "move_mount": "SYS_ADMIN",
    "quotactl": "SYS_ADMIN",
    "fanotify_init": "SYS_ADMIN",
    "bpf": "BPF",
    "perf_event_open": "PERFMON",
    "syslog": "SYSLOG",
    "open_by_handle_at": "DAC_READ_SEARCH",
    "reboot": "SYS_BOOT",
    "kexec_load": "SYS_BOOT",
    "chroot": "SYS_CHROOT",
    "init_module": "SYS_MODULE",
    "finit_module": "SYS_MODULE",
    "mbind": "SYS_NICE",
    "acct": "SYS_PACCT",
    "kcmp": "SYS_PTRACE",
    "pidfd_getfd": "SYS_PTRACE",
    "iopl": "SYS_RAWIO",
    "clock_settime": "SYS_TIME",
    "vhangup": "SYS_TTY_CONFIG",
}


@pytest.mark.parametrize(("name", "capability"), NEEDS.items())
def test_a_capability_opens_its_calls_and_nothing_else_does(name: str, capability: str) -> None:
    needed = Capability.parse(capability)
    others = frozenset(Capability) - {needed, Capability.SYS_ADMIN}
    assert answer(name, program=compiled(held=frozenset({needed}))) == ALLOW
    assert answer(name, program=compiled(held=others)) == EPERM
    if needed not in FOURTEEN:
        assert answer(name) == EPERM


@pytest.mark.parametrize(
    "name", ["keyctl", "add_key", "request_key", "userfaultfd", "io_uring_setup", "io_uring_enter", "_sysctl"]
)
def test_some_calls_are_refused_whatever_is_held(name: str) -> None:
    assert answer(name, program=compiled(held=frozenset(Capability))) == EPERM


def test_new_namespaces_are_refused_and_new_threads_are_not() -> None:
    thread, vfork = 0x3D0F00, 0x4111
    assert answer("clone", thread) == answer("clone", vfork) == answer("clone", 17) == ALLOW
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer("clone", flag | 17) == EPERM
        assert answer("clone", flag | 17, program=compiled(held=frozenset({Capability.SYS_ADMIN}))) == ALLOW


def test_clone3_makes_c_libraries_fall_back() -> None:
    assert answer("clone3") == ENOSYS
    assert answer("clone3", program=compiled(held=frozenset({Capability.SYS_ADMIN}))) == ALLOW


@pytest.mark.parametrize(
    ("family", "verdict"),
    [
        (1, ALLOW),
        (2, ALLOW),
        (10, ALLOW),
        (16, ALLOW),
        (17, ALLOW),
        (40, ALLOW),
        (0, ENOSYS),
        (38, ENOSYS),
        (21, ENOSYS),
        (30, ENOSYS),
    ],
)
def test_families_of_sockets(family: int, verdict: int) -> None:
    assert answer("socket", family, 1, 0) == verdict
    assert answer("socketpair", family, 1, 0) == verdict
    assert answer("socket", family | 1 << 32, 1, 0) == ENOSYS


@pytest.mark.parametrize("domain", [0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF])
def test_harmless_personalities(domain: int) -> None:
    assert answer("personality", domain) == ALLOW
    assert answer("personality", domain ^ 0x0040000) == ENOSYS  # ADDR_NO_RANDOMIZE


def test_what_is_newer_than_the_profile_is_not_there() -> None:
    assert run(DEFAULT, X86_64, 999) == ENOSYS
    assert run(DEFAULT, X86_64, X32_BIT | 999) == ENOSYS
    assert run(DEFAULT, X86, 999) == ENOSYS


def test_another_architecture_is_killed() -> None:
    assert run(DEFAULT, AARCH64, 63) == KILL
    assert run(compiled("arm64"), X86_64, 0) == KILL


@pytest.mark.parametrize("architecture", ARCHES)
def test_a_name_has_one_verdict_on_every_architecture_that_has_it(architecture: str) -> None:
    """Those whose arguments matter apart; so the x86 compatibility calls are no way round the x86-64 ones."""
    program = compiled(architecture)
    by_argument = {rule["names"][0] for rule in PROFILE["syscalls"] if rule.get("args")} | {"socketpair"}
    for arch in ARCHES[architecture]:
        for name, number in known_syscalls(arch, NAMES - by_argument).items():
            here = run(program, arch, number)
            first = known_syscalls(X86_64, [name])
            # Those of one family of processors are answered as if they were not there on the other.
            if first and name not in ("arch_prctl", "set_thread_area", "get_thread_area", "modify_ldt"):
                assert here == run(DEFAULT, X86_64, first[name]), name


def test_every_call_that_linux_has_was_thought_of() -> None:
    """Of the numbers that libseccomp names, the profile leaves out only what no kernel has any more."""
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_num_arch
    resolve.restype, resolve.argtypes = ctypes.c_void_p, (ctypes.c_uint32, ctypes.c_int)
    found = set()
    for arch in (X86_64, X86, AARCH64, ARM):
        for number in [*range(600), *range(0xF0000, 0xF0010)]:
            if pointer := resolve(arch, number):
                found.add(ctypes.string_at(pointer).decode())
    left_out = {name for name in found - NAMES if not _newer(name)}
    assert left_out <= set(GONE.split())
    assert len(NAMES & found) > 400


def _newer(name: str) -> bool:
    """Newer than the library that the list was made with: answered by ENOSYS, which is the default."""
    return all(number > 451 for number in known_syscalls(X86_64, [name]).values())


PROBE = """
import ctypes, os, struct, sys
program = sys.stdin.buffer.read()
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(program, len(program))
fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert libc.syscall(317, 1, 0, fprog) == 0, os.strerror(ctypes.get_errno())
def probe(number, *args):
    return ctypes.get_errno() if libc.syscall(number, *args) < 0 else 0
print(probe(165, 0, 0, 0, 0, 0), probe(250, 0, 0), probe(39), probe(435, 0, 0), probe(41, 38, 5, 0), probe(999))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the probe are x86-64's")
def test_a_kernel_takes_the_filter_and_answers_so() -> None:
    """mount, keyctl, getpid, clone3, socket(AF_ALG), and a call that is not there, in a child of this host's kernel."""
    import subprocess
    import sys

    program = compile_profile(default_profile(), architecture="amd64", capabilities=FOURTEEN, kernel=(6, 1)).bpf
    done = subprocess.run([sys.executable, "-c", PROBE], input=program, capture_output=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == ([b"1", b"1", b"0", b"38", b"38", b"38"], b"")
