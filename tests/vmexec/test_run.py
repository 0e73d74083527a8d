"""A container's first process: what it is given, and how it is told apart from its caller."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.vmexec.driver import Vmexec, finish
from tests.vmexec.specs import base, changed


def test_it_runs(vmexec: Vmexec, root: Path) -> None:
    done = finish(vmexec.run, base(root, "sh", "-c", "echo $$ $(hostname) $(pwd); exit 7"))
    assert (done.code, done.output) == (7, "1 test /\n")


def test_the_pid_is_the_callers_child(vmexec: Vmexec, root: Path) -> None:
    process = vmexec.run(base(root, "sleep", "60"))
    assert process.pid is not None
    assert Path(f"/proc/{process.pid}/cmdline").read_bytes() == b"sleep\x0060\x00"
    assert f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{process.pid}/status").read_text()
    process.kill()


@pytest.mark.parametrize("answer", [b"X", b"", b"SS"])
def test_a_caller_that_gives_up_runs_nothing(vmexec: Vmexec, root: Path, answer: bytes) -> None:
    process = vmexec.run(base(root, "touch", "/ran"), go=answer)
    assert process.error is None
    assert process.wait() == 125
    assert not (root / "ran").exists()


def test_nothing_of_the_caller_is_left(vmexec: Vmexec, root: Path, tmp_path: Path) -> None:
    """Python ignores SIGPIPE; a descriptor is made inheritable."""
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        spec = base(root, "sh", "-c", "grep -E 'Sig(Ign|Blk|Cgt)' /proc/self/status; ls /proc/self/fd; set")
        done = finish(vmexec.run, changed(spec, "process.env", ["PATH=/bin"]))
    lines = done.output.split("\n")
    assert lines[:3] == [f"Sig{kind}:\t0000000000000000" for kind in ("Blk", "Ign", "Cgt")]
    # ls has the folder itself open as 3.
    assert lines[3:7] == ["0", "1", "2", "3"]
    assert not any(line.startswith(("HOME=", "FIRKIN")) for line in lines)


def test_output_of_a_user_can_be_opened_by_name(vmexec: Vmexec, root: Path) -> None:
    spec = changed(base(root, "sh", "-c", "echo x >/dev/stdout; echo y >/dev/stderr"), "process.user.uid", 1000)
    assert finish(vmexec.run, spec).output == "x\ny\n"


@pytest.mark.parametrize(
    ("user", "env", "home"),
    [
        ({"uid": 0}, [], "/root"),
        ({"uid": 1000}, [], "/home/ann"),
        ({"username": "ann"}, [], "/home/ann"),
        ({"uid": 7}, [], "/"),
        ({"uid": 1000}, ["HOME=/given"], "/given"),
    ],
)
def test_home_where_it_is_asked_for(
    vmexec: Vmexec, root: Path, user: dict[str, object], env: list[str], home: str
) -> None:
    spec = changed(base(root, "env"), "process.env", ["PATH=/bin", *env])
    spec = changed(changed(spec, "process.user", user), "annotations", {"dev.firkin.env.home": "1"})
    assert finish(vmexec.run, spec).output.split() == ["PATH=/bin", f"HOME={home}"]


def test_a_huge_specification_is_read_to_its_end(vmexec: Vmexec, root: Path) -> None:
    # Just below MAX_ARG_STRLEN (execve(2)).
    spec = changed(
        base(root, "sh", "-c", "echo ${#A}${#B}"), "process.env", [f"{name}={'x' * 130_000}" for name in "AB"]
    )
    assert finish(vmexec.run, spec).output == "130000130000\n"


def test_containers_do_not_see_each_other(vmexec: Vmexec, root: Path) -> None:
    first = vmexec.run(base(root, "sleep", "60"))
    done = finish(vmexec.run, changed(base(root, "sh", "-c", "ps; ls /dev/shm"), "hostname", "other"))
    assert "sleep" not in done.output
    first.kill()
