"""A further process in a container that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vmexec.driver import Process, Vmexec, finish
from tests.vmexec.specs import base


@pytest.fixture
def container(vmexec: Vmexec, root: Path) -> Iterator[Process]:
    process = vmexec.run(base(root, "sleep", "60"))
    yield process
    process.kill()


def process(*args: str, **more: Any) -> dict[str, Any]:
    return base("/", *args)["process"] | more


def test_it_is_in_the_container(vmexec: Vmexec, container: Process) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user")
    script = "for kind in $0; do readlink /proc/self/ns/$kind /proc/1/ns/$kind; done; hostname; ls /"
    script = script.replace("readlink /proc/self/ns/$kind /proc/1/ns/$kind", "readlink /proc/self/ns/$kind")
    done = finish(vmexec.exec, container, process("sh", "-c", script, " ".join(kinds)))
    seen = done.output.split()
    expected = [str(Path(f"/proc/{container.pid}/ns/{kind}").readlink()) for kind in kinds]
    assert seen[: len(kinds)] == expected
    assert seen[len(kinds)] == "test"
    assert "bin" in seen


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_exit(vmexec: Vmexec, container: Process, script: str, code: int) -> None:
    assert finish(vmexec.exec, container, process("sh", "-c", script)).code == code


def test_user_by_the_images_files(vmexec: Vmexec, container: Process) -> None:
    wanted = {"process": process("id", user={"username": "ann"}), "annotations": {"dev.firkin.group_add": "video"}}
    done = finish(vmexec.exec, container, wanted)
    assert done.output == "uid=1000(ann) gid=100(users) groups=29(audio),44(video)\n"


def test_cwd_is_made(vmexec: Vmexec, container: Process) -> None:
    assert finish(vmexec.exec, container, process("pwd", cwd="/a/b/c")).output == "/a/b/c\n"


@pytest.mark.parametrize(
    ("args", "code", "errno"),
    [
        (["none"], 127, 2),
        (["/none"], 127, 2),
        (["/etc/passwd/x"], 127, 2),
        ([""], 127, 2),
        (["/etc"], 126, 21),
        (["/etc/passwd"], 126, 13),
    ],
)
def test_a_program_that_cannot_run(vmexec: Vmexec, container: Process, args: list[str], code: int, errno: int) -> None:
    failed = vmexec.exec(container, process(*args)).error
    assert failed is not None
    assert (failed["stage"], failed["exit_code"], failed["errno"]) == ("exec", code, errno)


def test_a_container_that_is_gone(vmexec: Vmexec, container: Process) -> None:
    pid = container.pid
    container.kill()
    failed = vmexec.exec(Process(pid=pid), process("true")).error
    assert failed is not None
    assert (failed["stage"], failed["exit_code"]) == ("join", 125)


def test_the_helper_is_hidden_from_the_container(vmexec: Vmexec, container: Process) -> None:
    """Its binary must not be reachable by /proc/PID/exe: whoever could write there would own the agent's helper."""
    waiting = vmexec.exec(container, process("true"), go=b"")
    assert waiting.error is None
    done = finish(vmexec.exec, container, process("sh", "-c", "readlink /proc/[0-9]*/exe || echo refused"))
    assert "vmexec" not in done.output
    waiting.wait()
