"""`firkin run` and its neighbours, as processes, in real VMs."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firkin.oci import Image
from tests.cli.conftest import Firkin

pytestmark = pytest.mark.vm
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def box(busybox_image: Image, start_firkin: Start) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The name of a container that another process runs, and that process."""
    name = f"box-{secrets.token_hex(3)}"
    script = "trap 'echo stopped; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    owner = start_firkin("run", "--name", name, "busybox", "sh", "-c", script)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    return name, owner


def test_hello(firkin: Firkin, busybox_image: Image) -> None:
    done = firkin("run", "--rm", "busybox", "echo", "hello from a micro-VM")
    assert (done.stdout, done.stderr, done.returncode) == ("hello from a micro-VM\n", "", 0)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("run", "busybox", "sh", "-c", "exit 42"), 42, ""),
        (("run", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137, ""),
        (("run", "busybox", "no-such-program"), 127, "can't execute 'no-such-program'"),
        (("run", "busybox", "/etc/passwd"), 126, "not executable"),
    ],
)
def test_exit_codes(firkin: Firkin, busybox_image: Image, args: tuple[str, ...], code: int, said: str) -> None:
    done = firkin(*args)
    assert done.returncode == code
    assert said in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("run", "--no-such-flag", "busybox"), "--no-such-flag"),
        (("run", "localhost/no-such-image", "true"), "no-such-image"),
        (("run", "--pull", "never", "no-such-image", "true"), "no image no-such-image:latest"),
        (("run", "--memory", "1k", "busybox", "true"), "memory"),
        (("run", "--name", "a/b", "busybox", "true"), "forbidden"),
        (("exec", "no-such-container", "true"), "no container"),
        (("stop", "no-such-container"), "no container"),
        (("kill", "-s", "NOSUCH", "x"), "NOSUCH"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_bad_input_is_one_line_and_125(firkin: Firkin, args: tuple[str, ...], said: str) -> None:
    done = firkin(*args)
    assert done.returncode == 125
    assert said in done.stderr
    assert done.stderr.startswith("firkin: ")
    assert done.stderr.count("\n") == 1


def test_standard_input_reaches_the_container(firkin: Firkin, busybox_image: Image) -> None:
    assert firkin("run", "-i", "busybox", "wc", "-c", input="x" * 100_000).stdout.strip() == "100000"
    assert firkin("run", "busybox", "wc", "-c", input="ignored").stdout.strip() == "0"


def test_environment_directory_and_boot_log(firkin: Firkin, busybox_image: Image, tmp_path: Path) -> None:
    log = tmp_path / "boot.log"
    script = "echo $A; pwd"
    done = firkin("run", "--no-fork", "--boot-log", str(log), "-e", "A=1", "-w", "/x", "busybox", "sh", "-c", script)
    assert done.stdout == "1\n/x\n"
    assert "vminitd: ready" in log.read_text()


def test_timings_go_to_standard_error(firkin: Firkin, busybox_image: Image) -> None:
    done = firkin("run", "--timings", "busybox", "true")
    assert "restore" in done.stderr or "boot" in done.stderr
    assert done.stdout == ""


def test_ps_and_inspect_show_what_another_process_runs(firkin: Firkin, box: tuple[str, object]) -> None:
    name, owner = box
    rows = json.loads(firkin("ps", "--format", "json").stdout)
    assert name in {row["id"] for row in rows}
    assert name in firkin("ps").stdout
    (document,) = json.loads(firkin("inspect", name).stdout)
    assert document["owner_pid"] == owner.pid  # type: ignore[attr-defined]
    assert document["status"] == "running"


def test_exec_from_another_process(firkin: Firkin, box: tuple[str, object]) -> None:
    name, _ = box
    done = firkin("exec", "-i", name, "sh", "-c", "cat; echo err >&2; exit 3", input="in\n")
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "err\n", 3)
    assert firkin("exec", name, "no-such-program").returncode == 127


def test_stop_from_another_process(firkin: Firkin, box: tuple[str, subprocess.Popen[str]]) -> None:
    name, owner = box
    done = firkin("stop", name)
    assert (done.stdout, done.returncode) == (f"{name}\n", 0)
    out, _ = owner.communicate(timeout=60)
    assert (out, owner.returncode) == ("stopped\n", 5)


def test_kill_from_another_process(firkin: Firkin, box: tuple[str, subprocess.Popen[str]]) -> None:
    name, owner = box
    assert firkin("kill", name).returncode == 0
    owner.communicate(timeout=60)
    assert owner.returncode == 137


def test_a_name_in_use_is_refused(firkin: Firkin, box: tuple[str, object]) -> None:
    name, _ = box
    done = firkin("run", "--name", name, "busybox", "true")
    assert done.returncode == 125
    assert "in use" in done.stderr


def test_a_signal_is_passed_on(box: tuple[str, subprocess.Popen[str]]) -> None:
    _, owner = box
    owner.send_signal(signal.SIGTERM)
    out, _ = owner.communicate(timeout=60)
    assert (out, owner.returncode) == ("stopped\n", 5)


def test_the_causes_of_an_error_of_the_guest_come_to_an_end(firkin: Firkin, busybox_image: Image) -> None:
    done = firkin("-v", "run", "--rm", "--sysctl", "kernel.no_such=1", "busybox", "true")
    assert done.returncode == 125
    assert "kernel.no_such" in done.stderr
    assert done.stderr.count("because: ") <= 2
