"""A person's terminal, as tmux is one: what is on its screen, and how it is left."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin.oci import Image
from tests.cli.conftest import FIRKIN

pytestmark = [pytest.mark.vm, pytest.mark.needs_tool("tmux")]
LIMIT = 60.0
RUN = shlex.join(FIRKIN)


class Tmux:
    """One window with a shell."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "tmux"
        self._environ = {**os.environ, "PS1": "ready> ", "TERM": "screen", "ENV": "", "PYTHONSTARTUP": ""}
        config = folder / "tmux.conf"
        config.write_text("set -g default-terminal screen\n")
        self("-f", str(config), "new-session", "-d", "-x", "100", "-y", "30", "sh", "-i")

    def __call__(self, *args: str) -> str:
        command = ["tmux", "-S", str(self._socket), *args]
        return subprocess.run(command, env=self._environ, check=True, capture_output=True, text=True).stdout

    def type(self, text: str) -> None:
        self("send-keys", "-l", text)
        self("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        self("send-keys", *keys)

    def until(self, text: str, count: int = 1) -> str:
        """The screen, once `text` is on it `count` times."""
        deadline = time.monotonic() + LIMIT
        while (screen := self("capture-pane", "-p", "-J")).count(text) < count:
            assert time.monotonic() < deadline, f"{text!r} is not {count} times on\n{screen}"
            time.sleep(0.05)
        return screen


@pytest.fixture
def tmux(tmp_path: Path, busybox_image: Image) -> Iterator[Tmux]:
    window = Tmux(tmp_path)
    window.until("ready> ")
    yield window
    window("kill-server")


def test_a_shell_inside_looks_like_one(tmux: Tmux) -> None:
    tmux.type("cd /")
    tmux.type(f"{RUN} run -it -e TERM busybox sh; echo left with $?")
    tmux.until("/ # ")
    tmux.type("stty size; echo term $TERM")
    screen = tmux.until("term screen")
    assert "30 100" in screen
    tmux("resize-window", "-x", "120", "-y", "40")
    tmux.type("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo re''sized")
    tmux.until("resized")
    # Editing on the inside's line: the keys arrive one by one.
    tmux.press("e", "c", "h", "o", "Space", "w", "r", "o", "BSpace", "Left", "Right", "o", "n", "g", "Enter")
    tmux.until("wrong", count=2)
    # A shell's interrupt key works on a program once that is in the foreground: until then it is the line editor's, or
    # the shell's own, on any terminal. So what is interrupted says that it runs.
    tmux.type("sh -c 'echo run''ning; exec sleep 300'")
    tmux.until("running")
    tmux.press("C-c")
    tmux.type("echo after $?")
    tmux.until("after 130")
    tmux.type("sh -c 'echo stopp''able; exec sleep 301'")
    tmux.until("stoppable")
    tmux.press("C-z")
    tmux.until("Stopped")
    tmux.type("kill %1; fg; exit 3")
    assert "left with 3" in tmux.until("left with 3")


def test_the_terminal_is_itself_again_whatever_happened(tmux: Tmux, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    tmux.type(f"stty -g > {before}")
    tmux.type(f"{RUN} run -it busybox sh; stty -g > {after}; echo left with $?")
    tmux.until("/ # ")
    # The owner's own end, by a signal that it can't handle.
    tmux.type("echo in''side")
    tmux.until("inside")
    pid = subprocess.run(["pgrep", "-f", "run -it busybox sh"], capture_output=True, text=True).stdout.split()
    assert pid
    tmux.press("C-d")
    tmux.until("left with 0")
    assert before.read_text() == after.read_text() != ""


def test_interrupts_and_job_control_of_a_container_in_the_foreground(tmux: Tmux) -> None:
    # Process 1 ignores the first: the kernel spares it from signals that it does not handle.
    tmux.type(f"{RUN} run busybox sh -c 'echo run''ning; while sleep 0.1; do :; done'")
    tmux.until("running")
    tmux.press("C-z")
    tmux.until("Stopped")
    tmux.until("ready> ", count=2)
    tmux.type("fg; echo left with $?")
    tmux.until("run busybox", count=3)
    tmux.press("C-c")
    tmux.press("C-c")
    assert "left with 137" in tmux.until("left with 137")
