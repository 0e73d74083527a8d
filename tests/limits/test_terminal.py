"""Terminals: `run -it` and `exec -it` in a real one, and `open_tty`, against real VMs."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

import firkin as library
from firkin.oci import Image
from tests.limits.terminal import CTRL_C, CTRL_Z, Terminal

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def box(busybox_image: Image) -> Iterator[library.Container]:
    with library.Container.launch("busybox", ["sleep", "600"]) as container:
        yield container


def test_a_shell_of_run(busybox_image: Image) -> None:
    # What is typed is echoed: the words that are waited for are never typed whole.
    with Terminal("run", "-it", "busybox", "sh", rows=40, columns=100) as terminal:
        terminal.until("# ")
        assert terminal.raw
        terminal.type("stty size; echo $TERM d''one\r")
        assert "40 100\r\nxterm done" in terminal.until("done")
        terminal.type("sh -c \"echo st''arted; exec sleep 300\"\r")
        terminal.until("started")
        terminal.type(CTRL_C)
        terminal.until("# ")
        terminal.type("echo code $? d''one; sh -c \"echo st''arted; exec sleep 300\"\r")
        assert "code 130 done" in terminal.until("started")
        terminal.type(CTRL_Z)
        terminal.until("# ")
        terminal.type("jobs; kill -9 %1; wait; echo d''one\r")
        assert "Stopped" in terminal.until("done")
        terminal.resize(50, 120)
        terminal.type("until [ \"$(stty size)\" = '50 120' ]; do sleep 0.1; done; echo re''sized\r")
        terminal.until("resized")
        terminal.type("exit 7\r")
        assert terminal.ended() == 7
        assert terminal.modes == terminal.modes_before


def test_exec_on_a_terminal_and_a_signal(box: library.Container) -> None:
    with Terminal("exec", "-it", "-e", "TERM=vt220", box.id, "sh", "-c", "stty size; echo $TERM; tty; cat") as terminal:
        assert "24 80\r\nvt220\r\n/dev/pts/" in terminal.until("/dev/pts/")
        terminal.type("typed\r")
        # Once echoed by the terminal, once written by cat.
        terminal.until("typed\r\n")
        terminal.until("typed\r\n")
        assert terminal.raw
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ended() == 143
        assert terminal.modes == terminal.modes_before


def test_the_terminal_is_put_back_when_the_container_ends_under_it(busybox_image: Image) -> None:
    with library.Container.launch("busybox", ["sleep", "600"]) as container:
        terminal = Terminal("exec", "-it", container.id, "sh")
        terminal.until("# ")
        assert terminal.raw
    with terminal:
        assert terminal.ended() in (125, 137)
        assert terminal.modes == terminal.modes_before


def test_a_closed_window_ends_the_container(busybox_image: Image) -> None:
    # Process 1 without a handler: the kernel spares it from the hang-up.
    with Terminal("run", "-it", "busybox", "sh", "-c", "echo ready; while :; do sleep 1; done") as terminal:
        terminal.until("ready")
        terminal.hang_up()
        assert terminal.process.wait(timeout=60) in (125, 137)


def test_open_tty(box: library.Container) -> None:
    process = box.open_tty(["sh", "-c", "read size; stty size; exit 4"], library.PtySize(132, 43))
    assert process.stdin is not None
    assert (process.stdout, process.stderr) == (None, None)
    process.resize(library.PtySize(100, 50))
    process.stdin.write(b"\n")
    assert process.stdin.read_all().endswith(b"50 100\r\n")
    assert process.wait(timeout=60).code == 4
