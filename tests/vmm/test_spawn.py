"""Child processes: bare, unprivileged, and gone with the process that started them."""

from __future__ import annotations

import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.errors import BootError
from firkin.vmm.assets import GUEST_FILES, PRELOAD_LIBRARY, guest_folder
from firkin.vmm.host import Lean
from firkin.vmm.spawn import Identity, _launcher, spawn

OWNER = """if True:
    import os, subprocess, sys, threading, time
    from firkin.vmm.spawn import Identity, spawn
    uid = int(sys.argv[1]) or None
    def work():
        child = spawn(["sleep", "600"], identity=Identity(uid), stderr=subprocess.DEVNULL)
        print(child.pid, flush=True)
    # The thread that asks ends at once: the child's life must not hang on it.
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    time.sleep(0.2)
    print("alive", flush=True)
    time.sleep(600)
"""


def run(argv: list[str], **options: object) -> tuple[int, str]:
    """Exit code and stderr of `argv`."""
    reader, writer = os.pipe()
    child = spawn(argv, stderr=writer, **options)  # type: ignore[arg-type]
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    return child.wait(), text


@pytest.mark.parametrize("uid", [0, 0x4B000123], ids=["own user", "other user"])
def test_it_dies_with_its_owner_and_not_with_a_thread(uid: int) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(uid)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = os.pidfd_open(int(owner.stdout.readline()))
    assert owner.stdout.readline() == "alive\n"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    gone, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert gone


def test_an_owner_that_is_gone_already_is_noticed() -> None:
    # The parent is compared with the pid that was told: here one that is surely another.
    launch = guest_folder() / "launch"
    ended = subprocess.run([launch, "--parent", "1", "--", "echo", "hi"], input=b"\n", capture_output=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, b"", b"")


def test_a_start_that_is_given_up_runs_nothing() -> None:
    launch = guest_folder() / "launch"
    command = [launch, "--parent", str(os.getpid()), "--", "echo", "hi"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, b"", b"")


def test_the_environment_is_bare_and_only_named_descriptors_are_open(tmp_path: Path) -> None:
    os.environ["FIRKIN_SPAWN_SECRET"] = "secret"
    try:
        extra = os.open(tmp_path, os.O_RDONLY)
        code, text = run(["sh", "-c", "env >&2; ls /proc/self/fd >&2"], fds=[extra])
    finally:
        del os.environ["FIRKIN_SPAWN_SECRET"]
        os.close(extra)
    assert code == 0
    assert "FIRKIN" not in text
    assert {line for line in text.splitlines() if line.isdigit()} == {"0", "1", "2", "3", str(extra)} | {"3"}


def test_another_user_without_groups_and_privileges() -> None:
    code, text = run(
        ["sh", "-c", "id >&2; grep -E 'NoNewPrivs|CapEff' /proc/self/status >&2"], identity=Identity(0x4B000123)
    )
    assert code == 0
    assert "uid=1258291491 gid=1258291491 groups=1258291491" in text
    assert "NoNewPrivs:\t1" in text
    assert "CapEff:\t0000000000000000" in text


def test_no_core_file_is_written() -> None:
    assert run(["sh", "-c", "ulimit -c >&2"]) == (0, "0\n")


def test_limits_are_hard_ones() -> None:
    code, text = run(["sh", "-c", "ulimit -H -n >&2; ulimit -S -n >&2"], limits={resource.RLIMIT_NOFILE: 99})
    assert (code, text) == (0, "99\n99\n")


def test_a_file_that_meets_its_limit_is_an_error_and_no_signal(tmp_path: Path) -> None:
    command = ["dd", "if=/dev/zero", f"of={tmp_path}/file", "bs=1M", "count=2"]
    code, text = run(command, limits={resource.RLIMIT_FSIZE: 1 << 20})
    assert code == 1
    assert "File too large" in text


@pytest.mark.parametrize("huge", [True, False])
def test_huge_pages_can_be_done_without(huge: bool) -> None:
    code, text = run(["sh", "-c", "grep THP_enabled /proc/self/status >&2"], huge_pages=huge)
    assert (code, text) == (0, f"THP_enabled:\t{int(huge)}\n")


def test_a_program_that_is_not_there_is_said() -> None:
    code, text = run(["/nowhere/qemu"])
    assert code == 127
    assert text.startswith("launch: can't run /nowhere/qemu: No such file or directory")


@pytest.mark.parametrize("uid", [None, 0x4B000123], ids=["own user", "other user"])
def test_a_file_in_a_private_folder_runs_under_the_programs_name(tmp_path: Path, uid: int | None) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    shutil.copy(shutil.which("busybox") or "busybox", private / "copy")
    (private / "copy").chmod(0o555)
    lean = Lean(str(private / "copy"), "/modules", ())
    words = ["sh", "-c", "id -u >&2; cat /proc/self/cmdline >&2; env >&2"]
    code, text = run(words, identity=Identity(uid), lean=lean)
    assert code == 0
    assert text.splitlines()[0] == str(os.geteuid() if uid is None else uid)
    assert "cat\0/proc/self/cmdline\0" in text
    assert "QEMU_MODULE_DIR=/modules\n" in text
    assert re.search(r"^LD_PRELOAD=/proc/self/fd/\d+$", text, re.MULTILINE)


def test_what_is_preloaded_is_there_before_all_libraries() -> None:
    lean = Lean("/bin/cat", "", ())
    code, text = run(["cat", "/nowhere", "/proc/self/maps"], lean=lean)
    assert (code, "QEMU_MODULE_DIR" in text) == (1, False)
    words = ["grep", "-c", PRELOAD_LIBRARY, "/proc/self/maps"]
    reader, writer = os.pipe()
    child = spawn(["sh", "-c", 'exec "$@" >&2', "sh", *words], stderr=writer, lean=Lean("/bin/sh", "", ()))
    os.close(writer)
    with os.fdopen(reader) as said:
        assert int(said.read()) > 0
    assert child.wait() == 0


def test_a_lean_program_that_is_gone_is_said() -> None:
    code, text = run(["qemu"], lean=Lean("/nowhere/qemu", "", ()))
    assert (code, text) == (127, "launch: can't run /nowhere/qemu: No such file or directory (os error 2)\n")


def test_without_its_launcher_nothing_starts_and_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in GUEST_FILES:
        (tmp_path / name).touch(mode=0o644)
    monkeypatch.setenv("FIRKIN_GUEST_DIR", str(tmp_path))
    _launcher.cache_clear()
    with pytest.raises(BootError, match=r"launch can't be run \(run tools/build_guest.py"):
        spawn(["true"], stderr=subprocess.DEVNULL)
    monkeypatch.undo()
    assert run(["true"]) == (0, "")


@pytest.mark.parametrize("point", ["boot.before-spawn", "boot.spawned"])
def test_killed_beside_the_spawn(point: str) -> None:
    code = (
        'import subprocess; from firkin.vmm.spawn import spawn; spawn(["sleep", "987654"], stderr=subprocess.DEVNULL)'
    )
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | {"FIRKIN_FAULT": f"{point}=kill"})
    assert ended.returncode == -signal.SIGKILL
    left = subprocess.run(["pgrep", "-f", "^sleep 987654"], capture_output=True, text=True)
    assert left.stdout == ""
