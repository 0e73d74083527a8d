"""How much guest code a start runs for the first time: what a start under emulation costs, on a busy machine too.

QEMU writes down each block that it translates (`-d in_asm`); one takes 10 to 15 microseconds on the machine of
docs/decisions/vmm.md. The host's load adds some, since more of the guest's timers come due in a slower start.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Result, benchmark
from firkin import AsyncContainer, Stdio


@contextmanager
def _tracing() -> Iterator[Path]:
    """A QEMU that writes its blocks down, for the starts in the block; the file that the last one wrote."""
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as name:
        folder = Path(name)
        qemu, log = shutil.which("qemu-system-x86_64"), folder / "blocks"
        log.touch()
        # QEMU is a user of its own.
        for path, mode in ((folder, 0o755), (log, 0o666)):
            path.chmod(mode)
        wrapper = folder / "qemu"
        wrapper.write_text(f'#!/bin/sh\nexec {qemu} "$@" -d in_asm -D {shlex.quote(str(log))}\n')
        wrapper.chmod(0o755)
        before = os.environ.get("FIRKIN_QEMU")
        os.environ["FIRKIN_QEMU"] = str(wrapper)
        try:
            yield log
        finally:
            os.environ.pop("FIRKIN_QEMU")
            if before is not None:
                os.environ["FIRKIN_QEMU"] = before


@benchmark(rounds=5)
async def start_blocks(rounds: int) -> list[Result]:
    """Blocks translated from QEMU's spawn to the first byte of `echo`, and to its end."""
    first, whole = [], []
    with _tracing() as log:
        for number in range(rounds + 1):
            log.write_bytes(b"")
            async with await AsyncContainer.launch("busybox", ("echo", "hi"), stdout=Stdio.PIPED) as container:
                assert container.process.stdout is not None
                await container.process.stdout.read()
                seen = _count(log)
                await container.wait()
            if number:  # The first made a base VM.
                first.append(seen)
                whole.append(_count(log))
    return [
        Result.of("start_blocks", first, unit="blocks"),
        Result.of("start_to_end_blocks", whole, unit="blocks"),
    ]


def _count(log: Path) -> float:
    return float(log.read_bytes().count(b"IN:"))
