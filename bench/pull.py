"""Pull and convert a Debian image with python3 (over 200 MB unpacked) from a registry on loopback, beside other tools.

`pull_convert_ratio_skopeo`: ours over `skopeo copy` + `umoci unpack` + `mke2fs -d`; `pull_convert_ratio_podman`: ours
over `podman pull`. Every round starts with an empty store. `pull_peak_mb`: our process's largest resident size;
`pull_unchanged_ms`: a further pull of the same tag, the process's start included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Result, benchmark, interleaved
from tests.oci.registry.servers import docker_registry

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = Path(os.environ.get("FIRKIN_TEST_IMAGES") or ROOT / ".build/images") / "debian-python"
FIRKIN = [sys.executable, "-c", "from firkin.cli.main import main; main()"]


@contextmanager
def _registry(folder: Path) -> Iterator[str]:
    """A registry with the image; yields its reference."""
    with docker_registry(folder / "registry") as registry:
        name = f"{registry.host}/debian-python:1"
        _run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{LAYOUT}:latest", f"docker://{name}")
        yield name


def _run(*arguments: object, env: dict[str, str] | None = None) -> float:
    """Run a program that must succeed; the seconds it took."""
    started = time.perf_counter()
    subprocess.run(list(map(str, arguments)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    return time.perf_counter() - started


def _in_fresh_folder(folder: Path, work: Callable[[Path], float]) -> Callable[[], float]:
    def once() -> float:
        fresh = Path(tempfile.mkdtemp(dir=folder))
        try:
            os.sync()  # What the last one left to be written is not this one's work.
            return work(fresh)
        finally:
            shutil.rmtree(fresh)

    return once


def _ours(name: str) -> Callable[[Path], float]:
    return lambda fresh: _run(*FIRKIN, "pull", "-q", name, env={**os.environ, "FIRKIN_HOME": str(fresh)})


def _skopeo(name: str) -> Callable[[Path], float]:
    def once(fresh: Path) -> float:
        return sum(
            (
                _run("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{fresh}/layout:x"),
                _run("umoci", "unpack", "--image", f"{fresh}/layout:x", fresh / "bundle"),
                _run("mke2fs", "-q", "-t", "ext4", "-d", fresh / "bundle/rootfs", fresh / "root.ext4", "16G"),
            )
        )

    return once


def _podman(name: str) -> Callable[[Path], float]:
    where = "--root", "--runroot"

    def once(fresh: Path) -> float:
        try:
            return _run(
                "podman", where[0], fresh / "a", where[1], fresh / "b", "pull", "-q", "--tls-verify=false", name
            )
        finally:
            # Its overlay storage leaves a mount behind.
            subprocess.run(["umount", "-q", fresh / "a/overlay"], check=False)

    return once


@benchmark(rounds=5)
def pull(rounds: int) -> list[Result]:
    """All four figures, in one run against one registry."""
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as temporary:
        folder = Path(temporary)
        with _registry(folder) as name:
            ours = _in_fresh_folder(folder, _ours(name))
            results = []
            for peer, work in (("skopeo", _skopeo(name)), ("podman", _podman(name))):
                mine, others = interleaved(ours, _in_fresh_folder(folder, work), rounds)
                results.append(
                    Result.of(f"pull_convert_ratio_{peer}", mine, unit="s", peer=others, target=1.0),
                )
            return [*results, *_alone(folder, name, rounds)]


def _peak_kb(command: list[str], env: dict[str, str]) -> int:
    """The largest resident size of `command`. A child begins with that of whoever starts it (getrusage(2)): a small
    process does."""
    script = (
        "import os, sys; pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ);"
        "_, status, usage = os.wait4(pid, 0); print(usage.ru_maxrss); sys.exit(os.waitstatus_to_exitcode(status))"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], env=env, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def _alone(folder: Path, name: str, rounds: int) -> list[Result]:
    home = folder / "home"
    env = {**os.environ, "FIRKIN_HOME": str(home)}
    peaks, unchanged = [], []
    for _ in range(rounds):
        shutil.rmtree(home, ignore_errors=True)
        peaks.append(_peak_kb([*FIRKIN, "pull", "-q", name], env) / 1024)
        unchanged.append(_run(*FIRKIN, "pull", "-q", name, env=env) * 1000)
    return [
        Result.of("pull_peak_mb", peaks, unit="MB", target=200),
        Result.of("pull_unchanged_ms", unchanged, target=150),
    ]
