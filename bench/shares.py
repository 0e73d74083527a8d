"""A folder of the host in a container, and a volume beside it: the same program in the same VM, in turns."""

from __future__ import annotations

import re
import tempfile
import time

import firkin
from bench.harness import Result, benchmark

_MEGABYTES = 256
_FILES = 300
_VOLUME = "bench"
_READ = "dd if={0}/big of=/dev/null bs=1M 2>/dev/null"
_CREATE = f"i=0; while [ $i -lt {_FILES} ]; do echo x > {{0}}/f$i; i=$((i+1)); done"
_DROP = "sync; echo 3 > /proc/sys/vm/drop_caches"


@benchmark(rounds=10)
def virtiofs_seq_read_mbps(rounds: int) -> list[Result]:
    """Reading a file of 256 MiB in pieces of 1 MiB, and making 300 files of two bytes, by busybox in one VM.

    The guest's page cache is emptied before each read; the host's holds the files. A share's peer is the volume. MB are
    10^6 bytes.
    """
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as share:
        firkin.Volume.create(_VOLUME, size="1g")
        try:
            mounts = [f"{share}:/virtiofs", f"{_VOLUME}:/block"]
            with firkin.Container.launch("busybox", ["sleep", "3600"], mounts=mounts, privileged=True) as container:
                for folder in ("virtiofs", "block"):
                    _sh(container, f"dd if=/dev/zero of=/{folder}/big bs=1M count={_MEGABYTES}")
                for number in range(rounds + 1):
                    for folder in ("virtiofs", "block"):
                        _sh(container, _DROP)
                        read = _seconds(container, _READ.format(f"/{folder}"))
                        made = _seconds(container, _CREATE.format(f"/{folder}"))
                        _sh(container, f"rm /{folder}/f*")
                        if number:
                            megabytes = _MEGABYTES * (1 << 20) / 1e6
                            samples.setdefault(f"{folder}_seq_read_mbps", []).append(megabytes / read)
                            samples.setdefault(f"{folder}_create_per_s", []).append(_FILES / made)
        finally:
            firkin.Volume.get(_VOLUME).remove()
    results = []
    for kind, unit in (("seq_read_mbps", "MB/s"), ("create_per_s", "1/s")):
        share_has, block_has = samples[f"virtiofs_{kind}"], samples[f"block_{kind}"]
        results.append(Result.of(f"virtiofs_{kind}", share_has, unit=unit, higher_is_better=True, peer=block_has))
        results.append(Result.of(f"block_{kind}", block_has, unit=unit, higher_is_better=True))
    return results


@benchmark(rounds=10)
def share_start_ms(rounds: int) -> Result:
    """From the call to the running process of a container with one share: by a fork, and by a boot (the peer)."""
    took: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as share:
        for number in range(rounds + 1):
            for fork in (True, False):
                began = time.perf_counter()
                with firkin.Container.launch("busybox", ["sleep", "600"], mounts=[f"{share}:/share"], fork=fork):
                    if number:
                        took[fork].append((time.perf_counter() - began) * 1e3)
    return Result.of("share_start_ms", took[True], peer=took[False])


def _seconds(container: firkin.Container, script: str) -> float:
    """How long `script` takes inside, to 10 ms: busybox's `time`."""
    said = _sh(container, f"time sh -c '{script}'")
    match = re.search(r"real\s+(\d+)m\s*([\d.]+)s", said)
    if match is None:
        raise RuntimeError(f"busybox says no time: {said!r}")
    return max(0.01, int(match[1]) * 60 + float(match[2]))


def _sh(container: firkin.Container, script: str) -> str:
    return str(container.run(["sh", "-c", f"exec 2>&1; {script}"], text=True, timeout=300, check=True).stdout)
