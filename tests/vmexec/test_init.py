"""`dev.firkin.init`: a PID 1 that forwards signals, reaps, and keeps nothing."""

from __future__ import annotations

import os
import re
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.vmexec.driver import Process, Vmexec, finish
from tests.vmexec.specs import PATH, base, changed


def with_init(root: Path, *args: str) -> dict[str, Any]:
    return changed(base(root, *args), "annotations", {"dev.firkin.init": "1"})


def started(vmexec: Vmexec, spec: dict[str, Any]) -> tuple[Process, Any]:
    """The process and its output, of which the first line was read: the program is up."""
    reader, writer = os.pipe()
    process = vmexec.run(spec, stdout=writer)
    os.close(writer)
    output = os.fdopen(reader, "rb", buffering=0)
    assert output.readline() == b"up\n"
    return process, output


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 9", 9), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_code(vmexec: Vmexec, root: Path, script: str, code: int) -> None:
    assert finish(vmexec.run, with_init(root, "sh", "-c", script)).code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_forwarded(vmexec: Vmexec, root: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    process, output = started(
        vmexec, with_init(root, "sh", "-c", f"trap 'echo {name}; exit 5' {name}; echo up; while :; do sleep 0.05; done")
    )
    with output:
        assert process.pid is not None
        os.kill(process.pid, number)
        assert process.wait() == 5
        assert output.read() == f"{name}\n".encode()


def test_orphans_are_reaped(vmexec: Vmexec, root: Path) -> None:
    # Orphans end while the program waits for its own child, and the init takes each as it comes.
    script = "for n in 1 2 3 4 5; do (sh -c 'sleep 0.05' &); done; sleep 0.3; cat /proc/[0-9]*/stat"
    done = finish(vmexec.run, with_init(root, "sh", "-c", script))
    states = re.findall(r"\) (\w) ", done.output)
    assert states
    assert "Z" not in states


def test_it_ends_with_the_program_and_takes_the_rest_along(vmexec: Vmexec, root: Path) -> None:
    done = finish(vmexec.run, with_init(root, "sh", "-c", "sleep 600 & exit 3"))
    assert done.code == 3


def test_it_keeps_nothing(vmexec: Vmexec, root: Path) -> None:
    secret = "hush-" + "s" * 40
    spec = changed(with_init(root, "sh", "-c", "echo up; sleep 60"), "process.env", [PATH, f"SECRET={secret}"])
    process, output = started(vmexec, spec)
    with output:
        status = Path(f"/proc/{process.pid}/status").read_text()
        anonymous = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert anonymous
        assert int(anonymous[1]) <= 128
        assert secret.encode() not in memory(process)
        assert list(Path(f"/proc/{process.pid}/fd").iterdir()) == []
        process.kill()


def memory(process: Process) -> bytes:
    """Everything writable of a process."""
    found = b""
    with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("rw"):
                file.seek(start)
                found += file.read(end - start)
    return found


def test_it_runs_as_the_user_with_no_more_capabilities(vmexec: Vmexec, root: Path) -> None:
    spec = changed(with_init(root, "sh", "-c", "echo up; sleep 60"), "process.user", {"username": "ann"})
    process, output = started(vmexec, spec)
    with output:
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "Uid:\t1000\t1000\t1000\t1000\n" in status
        assert "CapEff:\t0000000000000000\n" in status
        process.kill()


def test_interrupt_of_a_terminal_comes_once(vmexec: Vmexec, root: Path) -> None:
    script = "trap 'echo int' INT; echo up; sleep 0.5; sleep 0.5; echo end"
    spec = changed(with_init(root, "sh", "-c", script), "process.terminal", True)
    process = vmexec.run(spec)
    assert process.terminal is not None
    shown = until(process.terminal, b"up\r\n")
    os.write(process.terminal, b"\x03")
    shown += until(process.terminal, b"end\r\n")
    assert shown.count(b"int\r\n") == 1
    assert process.wait() == 0
    os.close(process.terminal)


def until(terminal: int, end: bytes) -> bytes:
    """What is shown, up to `end`."""
    shown = b""
    while end not in shown:
        ready, _, _ = select.select([terminal], [], [], 20)
        assert ready, f"nothing after {shown!r}"
        shown += os.read(terminal, 4096)
    return shown
