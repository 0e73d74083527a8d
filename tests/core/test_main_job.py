"""The main job in real VMs: `firkin.run`, exit statuses, streams to the byte, and errors that leave nothing."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator

import pytest

import firkin
from firkin.errors import ExecError, FirkinTimeoutError, ImageNotFoundError, InvalidInputError, ProcessFailedError
from firkin.oci import Image

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def box(busybox_image: Image) -> Iterator[firkin.Container]:
    with firkin.Container.launch("busybox", ["sleep", "600"]) as container:
        yield container


def test_run_captures_what_the_first_process_writes(busybox_image: Image) -> None:
    result = firkin.run("busybox", ["sh", "-c", "echo out; echo err >&2; exit 3"], text=True)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)


def test_run_feeds_input_and_defaults_to_bytes(busybox_image: Image) -> None:
    assert firkin.run("busybox", ["cat"], input=b"\x00\xff\n").stdout == b"\x00\xff\n"


async def test_the_async_twin(busybox_image: Image) -> None:
    result = await firkin.run_async("busybox", ["echo", "hello"])
    assert result.stdout == b"hello\n"


def test_debian_runs(debian_image: Image) -> None:
    result = firkin.run("localhost/debian", ["cat", "/etc/os-release"], text=True, check=True)
    assert "Debian GNU/Linux 12" in str(result.stdout)


@pytest.mark.parametrize(("command", "code"), [(["true"], 0), (["false"], 1), (["sh", "-c", "exit 42"], 42)])
def test_exit_codes(box: firkin.Container, command: list[str], code: int) -> None:
    assert box.run(command).returncode == code


def test_a_signal_is_reported_as_one(box: firkin.Container) -> None:
    status = box.run(["sh", "-c", "kill -9 $$"]).status
    assert (status.signal, status.code, status.shell_code) == (signal.SIGKILL, None, 137)


def test_a_missing_program_is_127(box: firkin.Container) -> None:
    with pytest.raises(ExecError, match="no-such-program") as caught:
        box.run(["no-such-program"])
    assert caught.value.exit_code == 127


def test_a_file_that_is_no_program_is_126(box: firkin.Container) -> None:
    with pytest.raises(ExecError) as caught:
        box.run(["/etc/passwd"])
    assert caught.value.exit_code == 126


def test_a_missing_first_program_leaves_nothing(busybox_image: Image) -> None:
    with pytest.raises(ExecError):
        firkin.run("busybox", ["no-such-program"])


def test_sixteen_mebibytes_through_both_streams(box: firkin.Container) -> None:
    data = hashlib.shake_256(b"firkin").digest(16 << 20)
    result = box.run(["cat"], input=data)
    assert isinstance(result.stdout, bytes)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_streams_are_separate_and_complete(box: firkin.Container) -> None:
    script = "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    result = box.run(["sh", "-c", script], text=True)
    assert result.stdout == "".join(f"out {n}\n" for n in range(500))
    assert result.stderr == "".join(f"err {n}\n" for n in range(500))


def test_an_exec_ends_with_its_process_not_with_its_grandchildren(box: firkin.Container) -> None:
    result = box.run(["sh", "-c", "sleep 300 & echo started"], timeout=30)
    assert result.stdout == b"started\n"


def test_capture_stops_at_its_limit_and_says_so(box: firkin.Container) -> None:
    result = box.run(["head", "-c", "100000", "/dev/zero"], capture_limit=1000)
    assert result.stdout == bytes(1000)
    assert result.truncated


def test_a_timeout_kills_the_process(box: firkin.Container) -> None:
    with pytest.raises(FirkinTimeoutError, match="sleep"):
        box.run(["sleep", "301"], timeout=0.5)
    assert b"sleep 301" not in box.run(["ps"]).stdout  # type: ignore[operator]


def test_check_raises_with_the_result(box: firkin.Container) -> None:
    with pytest.raises(ProcessFailedError, match="no such thing") as caught:
        box.run(["sh", "-c", "echo no such thing >&2; exit 9"], check=True)
    assert caught.value.result.returncode == 9  # type: ignore[attr-defined]


def test_environment_working_directory_and_user(box: firkin.Container) -> None:
    result = box.run(
        ["sh", "-c", "echo $A; pwd; id -u"], env={"A": "b c"}, working_dir="/made/here", user="1234", text=True
    )
    assert result.stdout == "b c\n/made/here\n1234\n"


def test_wait_and_kill_of_a_launched_container(busybox_image: Image) -> None:
    with firkin.Container.launch("busybox", ["sleep", "600"]) as container:
        with pytest.raises(FirkinTimeoutError):
            container.wait(timeout=0.2)
        container.kill()
        assert container.wait(timeout=30).signal == signal.SIGKILL


def test_stop_returns_as_soon_as_the_process_is_gone(busybox_image: Image) -> None:
    command = ["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"]
    with firkin.Container.launch("busybox", command, stdout=firkin.Stdio.PIPED) as container:
        assert container.process.stdout is not None
        assert container.process.stdout.read() == b"ready\n"
        assert container.stop(grace=60).code == 7
        assert container.stop(grace=60).code == 7


def test_bad_input_is_refused_before_anything_is_done(home: object) -> None:
    with pytest.raises(InvalidInputError, match="memory"):
        firkin.run("busybox", ["true"], memory="1k")
    with pytest.raises(InvalidInputError, match="forbidden"):
        firkin.run("busybox", ["true"], name="a/b")


def test_an_unknown_image_says_so(home: object) -> None:
    with pytest.raises(ImageNotFoundError, match="no-such-image"):
        firkin.run("localhost/no-such-image", ["true"])
