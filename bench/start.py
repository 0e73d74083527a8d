"""From a call to a first byte: forks, whole processes, execs; runsc beside them where it is installed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Result, benchmark
from firkin import AsyncContainer, Stdio
from firkin.types.state import StateDirs
from firkin.vmm.assets import guest_folder, resolve_assets
from firkin.vmm.host import Lean, probe
from firkin.vmm.spawn import spawn

_ECHO = ("echo", "hi")
# Runs the command line with the wall clock of its two turning points written down: QEMU's spawn and the exit frame.
_STAMPED = """
import logging, sys
file = sys.argv[1]
class Stamp(logging.Handler):
    def emit(self, record):
        with open(file, "a") as out: print(record.name, record.created, file=out)
for name in ("firkin.vmm.spawn", "firkin.core.starting"):
    logger = logging.getLogger(name)
    logger.addHandler(Stamp()); logger.setLevel(logging.DEBUG); logger.propagate = False
from firkin.cli import main
sys.argv[1:] = ["run", "busybox", "true"]
main()
"""
_FIRKIN = str(Path(sys.executable).with_name("firkin"))


async def _first_byte() -> float:
    began = time.perf_counter()
    async with await AsyncContainer.launch("busybox", _ECHO, stdout=Stdio.PIPED) as container:
        assert container.process.stdout is not None
        data = await container.process.stdout.read()
        took = (time.perf_counter() - began) * 1e3
        assert data == b"hi\n", data
        await container.wait()
    return took


@contextmanager
def _bundle() -> Iterator[Path]:
    """An OCI bundle of the same command, for runsc."""
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as name:
        folder = Path(name)
        (folder / "rootfs/bin").mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "/bin/busybox", folder / "rootfs/bin/busybox")
        (folder / "rootfs/bin/echo").symlink_to("busybox")
        subprocess.run(["runsc", "spec", "--", "/bin/echo", "hi"], cwd=folder, check=True, capture_output=True)
        config = json.loads((folder / "config.json").read_text())
        config["process"]["terminal"] = False
        (folder / "config.json").write_text(json.dumps(config))
        yield folder


def _runsc(bundle: Path, number: int) -> float:
    began = time.perf_counter()
    name = f"firkin-bench-{os.getpid()}-{number}"
    command = ["runsc", "--network=none", "--ignore-cgroups", "run", "--bundle", str(bundle), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        data = process.stdout.read(1)
        took = (time.perf_counter() - began) * 1e3
        assert data == b"h", data
    return took


@benchmark(rounds=30)
async def template_fork_ms(rounds: int) -> list[Result]:
    """A call of the Python API to the first byte of `echo`, and `runsc run` to its first byte, in turns."""
    await _first_byte()
    ours = []
    if shutil.which("runsc") is None:
        ours = [await _first_byte() for _ in range(rounds)]
        return [Result.of("template_fork_ms", ours, target=240)]
    theirs = []
    with _bundle() as bundle:
        _runsc(bundle, -1)
        for number in range(rounds):
            ours.append(await _first_byte())
            theirs.append(await asyncio.to_thread(_runsc, bundle, number))
    return [
        Result.of("template_fork_ms", ours, target=240),
        Result.of("template_fork_ratio_runsc", ours, peer=theirs),
    ]


_GUARD = '[ "$PPID" = "$1" ] && read -r _ || exit 1; shift; trap "" XFSZ; exec "$@" </dev/null'


def _started(command: Sequence[str]) -> float:
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        child.communicate(b"\n")
        assert child.returncode == 0, command
    return (time.perf_counter() - began) * 1e3


@benchmark(rounds=100)
def launch_ms(rounds: int) -> Result:
    """`true` as another user, with limits, that dies with its owner: by `launch`, and by util-linux and a shell."""
    owner, user = str(os.getpid()), "1258291200"
    ours = [str(guest_folder() / "launch"), "--parent", owner, "--limit", "core=0", "--limit", "nofile=1024"]
    ours += ["--user", user, "--no-new-privs", "--", "/bin/true"]
    theirs = ["prlimit", "--core=0:0", "--nofile=1024:1024", "setpriv", "--reuid", user, "--regid", user]
    theirs += ["--clear-groups", "--no-new-privs", "--pdeathsig", "KILL", "sh", "-c", _GUARD, "sh", owner, "/bin/true"]
    pairs = [(_started(ours), _started(theirs)) for _ in range(rounds)]
    return Result.of("launch_ms", [pair[0] for pair in pairs], peer=[pair[1] for pair in pairs])


@benchmark(rounds=50)
def lean_start_ms(rounds: int) -> Result:
    """QEMU until it has said its version: without the libraries that no VM needs, and as it is installed, in turns."""
    dirs = StateDirs.default()
    host = probe(dirs, resolve_assets(dirs))
    if host.lean is None:
        raise RuntimeError(f"{host.qemu} runs as it is here")

    def started(lean: Lean | None) -> float:
        began = time.perf_counter()
        child = spawn((host.qemu, "--version"), stderr=subprocess.DEVNULL, lean=lean)
        assert child.wait() == 0
        return (time.perf_counter() - began) * 1e3

    pairs = [(started(host.lean), started(None)) for _ in range(rounds)]
    return Result.of("lean_start_ms", [pair[0] for pair in pairs], peer=[pair[1] for pair in pairs])


@benchmark(rounds=30)
def run_process_ms(rounds: int) -> list[Result]:
    """`firkin run busybox echo hi` as a whole process; and of it Python's own time, by time stamps."""
    whole, overhead = [], []
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as folder:
        for number in range(rounds + 1):
            took = _process_ms("run", "busybox", *_ECHO)
            stamps = Path(folder) / f"stamps-{number}"
            begun = time.time()
            subprocess.run([sys.executable, "-c", _STAMPED, str(stamps)], check=True, stdout=subprocess.DEVNULL)
            finished = time.time()
            seen = {name: float(stamp) for name, stamp in map(str.split, stamps.read_text().splitlines())}
            if number:  # The first may have made a base VM.
                whole.append(took)
                spawned, exited = seen["firkin.vmm.spawn"], seen["firkin.core.starting"]
                overhead.append((spawned - begun + finished - exited) * 1e3)
    return [
        Result.of("run_process_ms", whole, target=400),
        Result.of("run_overhead_ms", overhead, target=150),
    ]


@benchmark(rounds=30)
def cli_version_ms(rounds: int) -> list[Result]:
    """`firkin version` and `firkin ps` as whole processes, and beside them a Python that does nothing."""
    _process_ms("ps")
    samples: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(rounds):
        samples[0].append(_process_ms("version"))
        samples[1].append(_process_ms("ps"))
        samples[2].append(_process_ms("-c", "pass", program=sys.executable))
    version, ps, bare = samples
    return [
        Result.of("cli_version_ms", version, target=80),
        Result.of("cli_ps_ms", ps, target=150),
        Result.of("python_ms", bare),
    ]


def _process_ms(*args: str, program: str = _FIRKIN) -> float:
    began = time.perf_counter()
    subprocess.run([program, *args], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


@benchmark(rounds=30)
async def exec_first_stdout_ms(rounds: int) -> list[Result]:
    """A warm exec of `echo` to its first byte, and 100 of them one after the other to their ends."""
    async with await AsyncContainer.launch("busybox", ("sleep", "3600")) as container:
        for _ in range(5):
            await container.run(_ECHO)
        samples = []
        for _ in range(rounds):
            began = time.perf_counter()
            process = await container.exec(_ECHO, stdout=Stdio.PIPED)
            assert process.stdout is not None
            await process.stdout.read()
            samples.append((time.perf_counter() - began) * 1e3)
            await process.wait()
            await container.forget(process)
        batches = []
        for _ in range(3):
            began = time.perf_counter()
            for _ in range(100):
                await container.run(_ECHO)
            batches.append((time.perf_counter() - began) * 1e3)
    return [
        Result.of("exec_first_stdout_ms", samples, target=25),
        Result.of("batch_100_ms", batches, target=2500),
    ]
