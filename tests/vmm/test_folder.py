"""The folder of a VM: one owner, found dead by its lock, removed by the next who looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.errors import InvalidInputError, StateError
from firkin.types.state import StateDirs
from firkin.vmm.folder import VmFolder, live, reclaim

CLAIM = """if True:
    import sys, time
    from pathlib import Path
    from firkin.types.state import StateDirs
    from firkin.vmm.folder import VmFolder
    folder = VmFolder.claim(StateDirs.under(Path(sys.argv[1])), "theirs")
    print("claimed", flush=True)
    if sys.argv[2] == "remove":
        folder.remove()
    time.sleep(60)
"""

FORK = """if True:
    import os, sys, time
    from pathlib import Path
    from firkin.types.state import StateDirs
    from firkin.vmm.folder import VmFolder
    folder = VmFolder.claim(StateDirs.under(Path(sys.argv[1])), "theirs")
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.close(1)
    time.sleep(600)
"""


@pytest.fixture
def dirs(tmp_path: Path) -> StateDirs:
    return StateDirs.under(tmp_path / "home")


def test_a_name_is_claimed_once(dirs: StateDirs) -> None:
    with VmFolder.claim(dirs, "one") as folder:
        assert folder.path == dirs.run / "vm/one"
        with pytest.raises(StateError, match="the name one is in use"):
            VmFolder.claim(dirs, "one")
        assert live(dirs) == [folder.path]
    assert live(dirs) == []
    with VmFolder.claim(dirs, "one") as again:
        assert again.path.is_dir()


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "x" * 65])
def test_a_name_that_can_be_no_folder_is_refused(dirs: StateDirs, name: str) -> None:
    with pytest.raises(InvalidInputError, match="can't name a VM"):
        VmFolder.claim(dirs, name)


def test_the_folder_of_a_killed_owner_is_reclaimed(dirs: StateDirs) -> None:
    owner = subprocess.Popen([sys.executable, "-c", CLAIM, str(dirs.run.parent), ""], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "claimed\n"
    with pytest.raises(StateError):
        VmFolder.claim(dirs, "theirs")
    (dirs.run / "vm/theirs/overlay0.qcow2").write_bytes(b"x")
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert reclaim(dirs) == ["theirs"]
    assert not (dirs.run / "vm/theirs").exists()


@pytest.mark.parametrize("point", ["folder.claimed", "folder.removing"])
def test_killed_at_a_fault_point(dirs: StateDirs, point: str) -> None:
    armed = os.environ | {"FIRKIN_FAULT": f"{point}=kill"}
    ended = subprocess.run(
        [sys.executable, "-c", CLAIM, str(dirs.run.parent), "remove"], env=armed, capture_output=True
    )
    assert ended.returncode == -signal.SIGKILL
    with VmFolder.claim(dirs, "theirs") as folder:
        assert [path.name for path in folder.path.iterdir()] == ["owner"]
    assert not list((dirs.run / "vm").iterdir())


def test_a_folder_that_got_no_lock_belongs_to_nobody(dirs: StateDirs) -> None:
    (dirs.make("run", "vm") / "half").mkdir()
    assert reclaim(dirs) == ["half"]


def test_a_forked_child_does_not_keep_the_name(dirs: StateDirs) -> None:
    owner = subprocess.Popen([sys.executable, "-c", FORK, str(dirs.run.parent)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert reclaim(dirs) == ["theirs"]
    os.kill(child, signal.SIGKILL)


def test_sockets_work_below_a_long_path(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120) / ("y" * 120)
    deep.mkdir(parents=True)
    with VmFolder.claim(StateDirs.under(deep), "one") as folder, folder.listen("agent.sock") as listener:
        client = folder.connect("agent.sock")
        server, _ = listener.accept()
        server.sendall(b"hello")
        client.setblocking(True)
        assert client.recv(5) == b"hello"
        for sock in (client, server):
            sock.close()


def test_folders_are_private_and_told_apart(dirs: StateDirs) -> None:
    with VmFolder.claim(dirs, "one") as one, VmFolder.claim(dirs, "two") as two:
        assert one.inode != two.inode
        assert one.path.stat().st_mode & 0o777 == 0o700
        assert dirs.run.stat().st_mode & 0o077 == 0


def test_removing_twice_is_harmless(dirs: StateDirs) -> None:
    folder = VmFolder.claim(dirs, "one")
    folder.remove()
    folder.remove()
    assert not folder.path.exists()
