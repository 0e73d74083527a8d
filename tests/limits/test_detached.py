"""Containers in the background: `run --detach`, `logs`, `attach`, `stop`, `wait`, `rm`, against real VMs."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from firkin.core.live import list_live
from firkin.oci import Image
from firkin.types import StateDirs
from tests.cli.conftest import FIRKIN, Firkin
from tests.limits.terminal import LIMIT, Terminal

pytestmark = pytest.mark.vm
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def name(firkin: Firkin, busybox_image: Image) -> Iterator[str]:
    """A name for one container, which is gone at the end."""
    chosen = f"back-{secrets.token_hex(3)}"
    yield chosen
    firkin("rm", "--force", chosen)
    gone(chosen)


def gone(name: str) -> None:
    deadline = time.monotonic() + LIMIT
    while name in alive():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive() -> list[str]:
    return [live.id for live in list_live(StateDirs.default())]


def end_input(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    # Whoever communicates with it later is not to flush it.
    process.stdin = None


def owner_of(firkin: Firkin, name: str) -> int:
    return int(json.loads(firkin("inspect", name).stdout)[0]["owner_pid"])


def test_it_runs_on_is_logged_and_waited_for(firkin: Firkin, name: str) -> None:
    script = "echo out; echo err >&2; trap 'echo stopped; exit 42' TERM; while :; do sleep 0.1; done"
    started = firkin("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    assert (started.returncode, started.stdout) == (0, f"{name}\n")
    waiting = subprocess.Popen([*FIRKIN, "wait", name], stdout=subprocess.PIPE, text=True)
    following = subprocess.Popen([*FIRKIN, "logs", "-f", name], stdout=subprocess.PIPE, text=True)
    assert following.stdout is not None
    assert following.stdout.readline() == "out\n"
    logs = firkin("logs", name)
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
    assert firkin("logs", "--tail", "1", name).stdout + firkin("logs", "--tail", "1", name).stderr == "err\n"
    assert firkin("logs", "-t", name).stdout.endswith("Z out\n")
    owner = os.pidfd_open(owner_of(firkin, name))
    signal.pidfd_send_signal(owner, signal.SIGTERM)
    os.close(owner)
    assert waiting.communicate(timeout=LIMIT)[0] == "42\n"
    assert following.communicate(timeout=LIMIT)[0] == "stopped\n"
    gone(name)
    assert firkin("logs", name).returncode == 125


def test_what_can_not_start_is_told_where_it_was_asked_for(firkin: Firkin, name: str) -> None:
    missing = firkin("run", "-d", "--name", name, "busybox", "/no/such/program")
    assert (missing.returncode, missing.stdout) == (127, "")
    assert "can't execute '/no/such/program'" in missing.stderr
    assert alive() == []


def test_several_attach_type_and_leave(firkin: Firkin, start_firkin: Start, name: str) -> None:
    script = "while read line; do echo got $line; [ $line = end ] && exit 3; done"
    assert firkin("run", "-d", "-i", "--name", name, "busybox", "sh", "-c", script).returncode == 0
    seeing = start_firkin("attach", "--no-stdin", name)
    first = start_firkin("attach", name, stdin=subprocess.PIPE)
    assert first.stdin is not None
    assert first.stdout is not None
    assert seeing.stdout is not None
    # Until an answer has come to both, nobody knows that both are there.
    both_by = time.monotonic() + LIMIT
    while not select.select([seeing.stdout], [], [], 0.2)[0]:
        assert time.monotonic() < both_by
        first.stdin.write("one\n")
        first.stdin.flush()
        assert first.stdout.readline() == "got one\n"
    # An attached end of input closes nothing: the next one types on.
    end_input(first)
    second = start_firkin("attach", name, stdin=subprocess.PIPE)
    assert second.communicate("two\nend\n", timeout=LIMIT)[0].endswith("got end\n")
    assert second.returncode == 3
    assert first.wait(timeout=LIMIT) == 3
    assert first.stdout.read() == "got two\ngot end\n"
    assert seeing.communicate(timeout=LIMIT)[0].endswith("got two\ngot end\n")
    assert seeing.returncode == 3


def test_a_terminal_is_left_by_keys_and_joined_again(firkin: Firkin, name: str) -> None:
    assert firkin("run", "-dit", "--name", name, "busybox", "sh").returncode == 0
    with Terminal("attach", name, rows=30, columns=90) as terminal:
        terminal.type("x=5; stty size; echo he''re\r")
        assert "30 90" in terminal.until("here\r\n")
        assert terminal.raw
        terminal.type(b"\x10\x11")
        assert terminal.ended() == 0
        assert terminal.modes == terminal.modes_before
    assert name in alive()
    with Terminal("attach", "--detach-keys", "ctrl-x,x", name) as terminal:
        # Those of the default are typed on, as is the beginning of ours.
        terminal.type(b"echo $x a''gain\r")
        terminal.until("5 again\r\n")
        terminal.type(b"\x18x")
        assert terminal.ended() == 0
    # A window that is closed leaves it running, too.
    with Terminal("attach", name) as terminal:
        terminal.type("echo an''other\r")
        terminal.until("another\r\n")
        terminal.hang_up()
        terminal.process.wait(timeout=LIMIT)
    assert "another" in firkin("logs", name).stdout
    with Terminal("attach", name) as terminal:
        terminal.type("exit 9\r")
        assert terminal.ended() == 9


def test_the_output_of_a_container_in_the_foreground_is_seen_too(start_firkin: Start, name: str) -> None:
    owner = start_firkin("run", "-i", "--name", name, "busybox", "sh", "-c", "echo up; while read l; do echo $l; done",
                         stdin=subprocess.PIPE)  # fmt: skip
    assert owner.stdin is not None
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    attached = start_firkin("attach", name, stdin=subprocess.PIPE)
    assert attached.stdin is not None
    assert attached.stdout is not None
    attached.stdin.write("typed\n")
    attached.stdin.flush()
    assert (attached.stdout.readline(), owner.stdout.readline()) == ("typed\n", "typed\n")
    end_input(owner)
    assert owner.wait(timeout=LIMIT) == 0
    assert attached.communicate(timeout=LIMIT) == ("", "")
    assert attached.returncode == 0


def test_nothing_is_left_of_an_owner_that_was_killed(firkin: Firkin, name: str) -> None:
    assert firkin("run", "-d", "--name", name, "busybox", "sleep", "600").returncode == 0
    owner = os.pidfd_open(owner_of(firkin, name))
    refused = firkin("rm", name)
    assert (refused.returncode, "--force" in refused.stderr) == (125, True)
    signal.pidfd_send_signal(owner, signal.SIGKILL)
    os.close(owner)
    gone(name)


def test_a_flood_is_logged_in_bounds_and_holds_nobody_up(firkin: Firkin, name: str) -> None:
    script = "dd if=/dev/zero bs=64k count=280 2>/dev/null | tr '\\0' x; echo; echo last; sleep 600"
    assert firkin("run", "-d", "--name", name, "busybox", "sh", "-c", script).returncode == 0
    following = subprocess.Popen([*FIRKIN, "logs", "-f", name], stdout=subprocess.PIPE)
    assert following.stdout is not None
    assert any(line.endswith(b"last\n") for line in following.stdout)
    folder = StateDirs.default().run / "vm" / name
    sizes = [path.stat().st_size for path in folder.glob("output*.log")]
    assert len(sizes) == 2
    assert max(sizes) <= 9 << 20
    assert firkin("logs", "-n", "1", name).stdout == "last\n"
    firkin("rm", "-f", name)
    following.stdout.close()
    following.wait(timeout=LIMIT)
