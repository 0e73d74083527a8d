"""The check for leftovers finds one of each kind, and only what is new."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin.vmm.cgroup import find_places
from tests import leftovers
from tests.conftest import sweep
from tests.leftovers import Found, of_marks, since, snapshot


@pytest.fixture
def before() -> frozenset[Found]:
    """What was there when the test began."""
    return snapshot()


def new(before: frozenset[Found], kind: str, *folders: Path, marks: tuple[str, ...] = ()) -> list[str]:
    """Texts of what came since, of one kind."""
    return [thing.what for thing in since(before, snapshot(folders, marks)) if thing.kind == kind]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that passes for QEMU by its name, blocked on its standard input."""
    program = tmp_path / "qemu-system-leaked"
    shutil.copy2("/bin/cat", program)
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_helper_process_is_found(before: frozenset[Found], sleeper: subprocess.Popen[bytes]) -> None:
    assert any(text.startswith(f"{sleeper.pid} ") for text in new(before, "process"))


def test_a_zombie_is_no_leftover(before: frozenset[Found], sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not any(text.startswith(f"{sleeper.pid} ") for text in new(before, "process"))


@pytest.mark.parametrize("where", ["environment", "open file", "working folder", "command line"])
def test_a_process_of_any_name_is_found_by_its_mark(before: frozenset[Found], tmp_path: Path, where: str) -> None:
    mark = str(tmp_path)
    held = tmp_path / "held"
    held.touch()
    with (
        held.open() as file,
        subprocess.Popen(
            ["cat", "-", *([mark] if where == "command line" else [])],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"MARK": mark} if where == "environment" else {},
            cwd=mark if where == "working folder" else "/",
            pass_fds=[file.fileno()] if where == "open file" else [],
        ) as process,
    ):
        found = new(before, "process", marks=(mark,))
        process.kill()
    assert any(text.startswith(f"{process.pid} ") for text in found)


def test_a_mount_is_found(before: frozenset[Found], tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "leaked", tmp_path], check=True)
    try:
        found = new(before, "mount")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert found == [f"{tmp_path} (tmpfs leaked)"]


def test_listening_sockets_are_found(before: frozenset[Found]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        unix.bind(f"{folder}/s")
        unix.listen()
        abstract.bind(f"\0{folder}")
        abstract.listen()
        udp.bind(("127.0.0.1", 0))
        found = new(before, "socket")
        expected = {
            f"tcp port {tcp.getsockname()[1]}",
            f"udp port {udp.getsockname()[1]}",
            f"unix {folder}/s",
            f"unix @{folder}",
        }
    assert expected <= set(found)


def test_a_connected_socket_is_no_leftover(before: frozenset[Found]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
    with client, accepted:
        found = new(before, "socket")
    assert f"tcp port {port}" not in found


def test_a_tap_is_found(before: frozenset[Found]) -> None:
    subprocess.run(["ip", "tuntap", "add", "fkleak0", "mode", "tap"], check=True)
    try:
        found = new(before, "interface")
    finally:
        subprocess.run(["ip", "link", "del", "fkleak0"], check=True)
    assert found == ["fkleak0"]


def test_a_loop_device_is_found(before: frozenset[Found], tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(1 << 20))
    device = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        found = new(before, "loop device")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert found == [f"{Path(device).name} of {image}"]


@pytest.mark.parametrize(
    ("kind", "folder"), [("shared memory", "/dev/shm"), ("temporary file", "/tmp"), ("temporary file", "/var/tmp")]
)
def test_a_file_of_memory_and_tmp_is_found(before: frozenset[Found], kind: str, folder: str) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix="fkleak-") as file:
        found = new(before, kind)
    assert file.name in found


def test_a_folder_of_a_vm_is_found(before: frozenset[Found], tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "vm" / "gone").mkdir(parents=True)
    (run / "vm" / "gone" / "owner").touch()
    assert new(before, "state", run) == [f"{run}/vm/gone", f"{run}/vm/gone/owner"]


def test_the_empty_run_folder_is_no_leftover(before: frozenset[Found], tmp_path: Path) -> None:
    (tmp_path / "run" / "vm").mkdir(parents=True)
    assert new(before, "state", tmp_path / "run") == []


def test_things_are_told_apart_by_their_marks(tmp_path: Path) -> None:
    mine, other = Found("mount", "7 /x/mine", "/x/mine (tmpfs)"), Found("mount", "8 /x/other", "/x/other (tmpfs)")
    assert of_marks([mine, other], ["/x/mine"]) == [mine]


def test_a_socket_belongs_to_who_holds_it(before: frozenset[Found], tmp_path: Path) -> None:
    with (tmp_path / "held").open("w"), socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = of_marks(since(before, snapshot()), [str(tmp_path)])
    assert f"tcp port {port}" in [thing.what for thing in found]


def test_the_script_reports_by_line_and_exit_status(tmp_path: Path) -> None:
    script, record, run = Path(leftovers.__file__), tmp_path / "before.json", tmp_path / "run"
    run.mkdir()
    command = [sys.executable, "-I", script, "--folder", run]
    subprocess.run([*command, "--before", record], check=True)
    (run / "leaked").touch()
    done = subprocess.run([*command, "--since", record], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"left over: state: {run}/leaked" in done.stdout.splitlines()
    assert ["state", f"{run}/leaked"] not in json.loads(record.read_text())


def test_the_check_imports_nothing_of_firkin() -> None:
    code = "import sys; sys.path[:0] = sys.argv[1:]; import leftovers; print([m for m in sys.modules if 'firkin' in m])"
    folder = str(Path(leftovers.__file__).parent)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, folder], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


KILLED_WORKER = """
import fcntl, os, subprocess, sys
from pathlib import Path
from firkin.types.state import StateDirs
from firkin.vmm.folder import VmFolder
from firkin.vmm.spawn import spawn
home = Path(sys.argv[1])
lock = (home / "lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX)
for state in (home, home / "scratch/test_x/home"):
    folder = VmFolder.claim(StateDirs.under(state), "theirs")
    spawn(["sleep", "600"], cage=folder.cage, stderr=subprocess.DEVNULL)
    print(*folder.cage.groups, sep="\\n", flush=True)
sys.stdin.read()
"""


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    home, scratch = tmp_path / "all/worker-gw0-x", tmp_path / "fkt-x"
    home.mkdir(parents=True)
    scratch.mkdir()
    (home / "scratch").symlink_to(scratch)
    command = [sys.executable, "-c", KILLED_WORKER, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        groups = [Path(worker.stdout.readline().strip()) for _ in range(2 * len(find_places()))]
        sweep(home.parent)
        assert (home.is_dir(), scratch.is_dir()) == (True, True)
        assert all(group.is_dir() for group in groups)
        worker.kill()
    sweep(home.parent)
    assert (home.exists(), scratch.exists()) == (False, False)
    assert not any(group.exists() for group in groups)
