"""What a virtiofsd is shut into: one folder or file, without rights over the machine. No VM."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from firkin.vmm import share_room
from firkin.vmm.virtiofsd import id_maps, try_sharing

pytestmark = pytest.mark.needs_tool("setpriv", "unshare")
IDENTITY = "0 0 4294967295"
# Debian's own: the one of the virtual environment may be in a folder that only root can enter.
PYTHON = "/usr/bin/python3"


def inside(source: Path, kind: str, mode: str, script: str, *, ids: str = "", before: tuple[str, ...] = ()) -> str:
    """What `script` says, run where virtiofsd would be."""
    program = [PYTHON, "-I", "-S", "-", str(source), kind, mode, ids, ids, "/bin/sh", "-c", script]
    code = Path(share_room.__file__).read_bytes()
    done = subprocess.run([*before, *program], input=code, capture_output=True, timeout=60)
    return (done.stdout + done.stderr).decode()


def test_a_read_only_folder_is_so_with_what_is_mounted_in_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    script = 'mount -t tmpfs x "$1"/sub; shift; exec "$@"'
    own_mounts = ("unshare", "-m", "sh", "-c", script, "sh", str(tmp_path))
    touch = "cd /run/share; touch a; touch sub/b; ls; ls sub"
    said = inside(tmp_path, "folder", "ro", touch, before=own_mounts, ids=IDENTITY)
    assert said.startswith("sub\n")
    assert said.count("Read-only file system") == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "sub"]
    said = inside(tmp_path, "folder", "rw", "cd /run/share; touch sub/b && ls sub", before=own_mounts, ids=IDENTITY)
    assert said == "b\n"


def test_a_file_is_alone_in_a_folder_that_nobody_can_write(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("content")
    (tmp_path / "secret").write_text("no")
    script = "cd /run/share; ls -A; cat file; touch x; rm -f file; echo new > file; ls .."
    said = inside(tmp_path / "it", "file", "rw", script, ids=IDENTITY)
    assert said.startswith("file\ncontent")
    assert said.count("cannot") == 2, said
    assert (tmp_path / "it").read_text() == "new\n"
    assert "Read-only" in inside(tmp_path / "it", "file", "ro", "echo no > /run/share/file", ids=IDENTITY)


def test_roots_rights_end_at_the_machine(tmp_path: Path) -> None:
    os.chown(tmp_path, 4242, 4242)
    script = (
        "id -u; chown 7:7 /run/share; hostname other; mknod /run/share/null c 1 3; grep NoNewPrivs /proc/self/status"
    )
    said = inside(tmp_path, "folder", "rw", script, ids=IDENTITY)
    assert said.startswith("0\nNoNewPrivs:\t1\n")
    assert "mknod" in said
    assert not (tmp_path / "null").exists()
    assert tmp_path.stat().st_uid == 7, "rights over files stay"
    assert os.uname().nodename != "other"


def test_another_user_is_root_of_what_is_his_and_has_no_groups(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(path.stat().st_mode | 0o055)
        if path.name.startswith("fkt-"):
            # The scratch folder of the whole run, see conftest.py.
            break
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", 4242, 4242)
    user = ("setpriv", "--reuid", "4242", "--regid", "4242", "--groups", "27,100")
    script = "id -u; id -G; stat -c %u . mine; touch mine/new"
    said = inside(tmp_path, "folder", "rw", f"cd /run/share; {script}", ids="0 4242 1", before=user)
    assert said == "0\n0\n65534\n0\n"
    assert (tmp_path / "mine" / "new").stat().st_uid == 4242


def test_this_host_can_share_and_says_whose_files_are_whose() -> None:
    works, meaning = try_sharing()
    assert works, meaning
    assert meaning == id_maps().meaning == "ids are the same on both sides"


def test_a_source_that_went_is_told_in_one_line(tmp_path: Path) -> None:
    said = inside(tmp_path / "gone", "folder", "rw", "true", ids=IDENTITY)
    assert said == "can't open the source: No such file or directory\n"
