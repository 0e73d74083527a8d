"""What a container's specification and its seccomp filter cost on the host.

`lower_ms`: options to JSON. `seccomp_cached_ms`: the default filter from the cache, as every start but the first has
it; `seccomp_compile_ms`: made anew. `seccomp_install_ms` and `seccomp_instructions`: to set the filter in a new process
of this host's kernel, and its length, beside the same filter as libseccomp writes it (the peer).
"""

from __future__ import annotations

import ctypes
import os
import struct
import tempfile
import time
from pathlib import Path

from bench.harness import Result, benchmark, interleaved, milliseconds
from firkin.core.lowering import SeccompProgram, lower
from firkin.core.option_inputs import container_options
from firkin.core.seccomp_cache import default_profile, program_for
from firkin.core.seccomp_compile import compile_profile, translate
from firkin.oci.config import ImageConfig
from firkin.types import ContainerId, LinuxCapabilities

_PR_SET_NO_NEW_PRIVS, _SYS_SECCOMP_X86_64, _SET_MODE_FILTER = 38, 317, 1
_FOURTEEN = LinuxCapabilities.default_oci()
_HELD = frozenset(_FOURTEEN.bounding)


@benchmark(rounds=200)
def lower_ms(rounds: int) -> Result:
    options = container_options(["true"])
    image, name, program = ImageConfig(env=("PATH=/bin",)), ContainerId("bench"), SeccompProgram(bytes(2600))

    def once() -> bytes:
        return lower(options, image, container_id=name, seccomp=program).to_json()

    return Result.of("lower_ms", [milliseconds(once) for _ in range(rounds)])


@benchmark(rounds=50)
def seccomp_cached_ms(rounds: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        program_for("default", _FOURTEEN, cache=Path(folder))
        use = [milliseconds(lambda: program_for("default", _FOURTEEN, cache=Path(folder))) for _ in range(rounds)]
    return Result.of("seccomp_cached_ms", use)


@benchmark(rounds=10)
def seccomp_compile_ms(rounds: int) -> Result:
    work = [
        milliseconds(
            lambda: compile_profile(default_profile(), architecture="amd64", capabilities=_HELD, kernel=(6, 1))
        )
        for _ in range(rounds)
    ]
    return Result.of("seccomp_compile_ms", work)


@benchmark(rounds=50)
def seccomp_install_ms(rounds: int) -> list[Result]:
    ours = compile_profile(default_profile(), architecture="amd64", capabilities=_HELD, kernel=(6, 1)).bpf
    peer = translate(default_profile(), architecture="amd64", capabilities=_HELD, kernel=(6, 1))
    short, long = interleaved(lambda: _install(ours), lambda: _install(peer), rounds)
    return [
        Result.of("seccomp_install_ms", short, peer=long),
        Result.of("seccomp_instructions", [len(ours) / 8], unit="", peer=[len(peer) / 8]),
    ]


def _install(program: bytes) -> float:
    """Milliseconds that seccomp(2) takes in a child, which ends with it."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        instructions = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        start = time.perf_counter_ns()
        failed = libc.syscall(_SYS_SECCOMP_X86_64, _SET_MODE_FILTER, 0, fprog)
        os.write(writer, struct.pack("q", -1 if failed else time.perf_counter_ns() - start))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        (nanoseconds,) = struct.unpack("q", pipe.read())
    os.wait()
    if nanoseconds < 0:
        raise OSError("the kernel did not take the filter")
    return float(nanoseconds) / 1e6
