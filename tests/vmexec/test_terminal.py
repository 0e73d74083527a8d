"""`process.terminal`: a pty of the container's own."""

from __future__ import annotations

import os
from pathlib import Path

from tests.vmexec.driver import Process, Vmexec
from tests.vmexec.specs import base, changed
from tests.vmexec.test_init import until


def start(vmexec: Vmexec, root: Path, script: str, pty: str | None = None) -> tuple[Process, int]:
    process = vmexec.run(changed(base(root, "sh", "-c", script), "process.terminal", True), pty=pty)
    assert process.terminal is not None, process.error
    return process, process.terminal


def test_it_is_a_terminal_of_the_container(vmexec: Vmexec, root: Path) -> None:
    process, terminal = start(
        vmexec, root, "tty; stty size; ls -l /dev/console; echo by console >/dev/console; echo end", "101x33"
    )
    shown = until(terminal, b"end\r\n").decode().splitlines()
    assert shown[0] == "/dev/pts/0"
    assert shown[1] == "33 101"
    assert shown[2].startswith("crw")
    assert "136,   0" in shown[2]
    assert shown[3] == "by console"
    assert process.wait() == 0
    os.close(terminal)


def test_the_command_line_wins_over_the_specification(vmexec: Vmexec, root: Path) -> None:
    spec = changed(base(root, "stty", "size"), "process.terminal", True)
    spec = changed(spec, "process.consoleSize", {"width": 20, "height": 10})
    for pty, size in ((None, b"10 20\r\n"), ("30x15", b"15 30\r\n")):
        process = vmexec.run(spec, pty=pty)
        assert process.terminal is not None
        until(process.terminal, size)
        assert process.wait() == 0
        os.close(process.terminal)


def test_it_is_the_controlling_terminal(vmexec: Vmexec, root: Path) -> None:
    process, terminal = start(vmexec, root, "trap 'echo int; exit 4' INT; echo up; while :; do sleep 0.05; done")
    until(terminal, b"up\r\n")
    os.write(terminal, b"\x03")
    until(terminal, b"int\r\n")
    assert process.wait() == 4
    os.close(terminal)


def test_a_terminal_that_goes_away_hangs_up(vmexec: Vmexec, root: Path) -> None:
    process, terminal = start(vmexec, root, "trap 'exit 6' HUP; echo up; while :; do sleep 0.05; done")
    until(terminal, b"up\r\n")
    os.close(terminal)
    assert process.wait() == 6


def test_exec_opens_its_own(vmexec: Vmexec, root: Path) -> None:
    first, terminal = start(vmexec, root, "echo up; sleep 60")
    until(terminal, b"up\r\n")
    process = base(root, "tty")["process"] | {"terminal": True, "user": {"username": "ann"}}
    second = vmexec.exec(first, process)
    assert second.terminal is not None, second.error
    until(second.terminal, b"/dev/pts/1\r\n")
    assert second.wait() == 0
    first.kill()
    os.close(terminal)
    os.close(second.terminal)


def test_without_devpts_it_is_an_error(vmexec: Vmexec, root: Path) -> None:
    spec = changed(base(root, "true"), "process.terminal", True)
    spec = changed(spec, "mounts", [entry for entry in spec["mounts"] if entry["destination"] != "/dev/pts"])
    failed = vmexec.run(spec).error
    assert failed is not None
    assert (failed["stage"], failed["errno"]) == ("pty", 2)
