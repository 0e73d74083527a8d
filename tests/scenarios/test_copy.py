"""Scenarios: files and folders into a container and out of it."""

from __future__ import annotations

import filecmp
import io
import os
import stat
from pathlib import Path

import pytest

import firkin
from firkin.errors import AgentError

pytestmark = pytest.mark.vm
scenario = pytest.mark.scenario
MIB = 1 << 20


def shell(box: firkin.Container, script: str) -> str:
    return str(box.run(["sh", "-ec", script], text=True, check=True).stdout)


@scenario("container copy in")
def test_a_file_in(plain: firkin.Container, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("from the host")
    plain.put(tmp_path / "note", "/tmp/note")
    assert shell(plain, "cat /tmp/note; stat -c ' %u:%g' /tmp/note") == "from the host 0:0\n"
    plain.put(tmp_path / "note", "/tmp/owned", uid=7, gid=8)
    plain.put(b"bytes", "/tmp/bytes", mode=0o600)
    assert shell(plain, "stat -c '%u:%g' /tmp/owned; stat -c %a /tmp/bytes; cat /tmp/bytes") == "7:8\n600\nbytes"


@scenario("container copy out")
def test_a_file_out(plain: firkin.Container, tmp_path: Path) -> None:
    shell(plain, "echo from the guest > /tmp/out")
    plain.get("/tmp/out", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "from the guest\n"
    taken = io.BytesIO()
    plain.get("/tmp/out", taken)
    assert taken.getvalue() == b"from the guest\n"


@scenario("container copy in file to existing directory")
def test_a_file_into_a_folder(plain: firkin.Container, tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("x")
    shell(plain, "mkdir -p /tmp/there")
    plain.put(tmp_path / "inner", "/tmp/there")
    plain.put(tmp_path / "inner", "/tmp/there/")
    assert shell(plain, "ls /tmp/there") == "inner\n"


@scenario("container copy in create parents")
def test_missing_folders_are_made_where_asked(plain: firkin.Container, tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("x")
    with pytest.raises(AgentError, match="No such file"):
        plain.put(tmp_path / "deep", "/tmp/p/q/r/deep")
    plain.put(tmp_path / "deep", "/tmp/p/q/r/deep", create_parents=True)
    plain.put(tmp_path / "deep", "/tmp/p/s/", create_parents=True)
    assert shell(plain, "cd /tmp/p; find . -type f | sort") == "./q/r/deep\n./s/deep\n"


@scenario("container copy in directory")
def test_a_folder_in(plain: firkin.Container, tree: Path) -> None:
    plain.put(tree, "/tmp/tree")
    plain.put(tree, "/tmp/tree")
    script = "cd /tmp/tree; cat sub/b; readlink link; stat -c '%h %a' a hard; ls; ls src"
    assert shell(plain, script) == "bb../nowhere\n2 640\n2 640\na\nhard\nlink\nsrc\nsub\na\nhard\nlink\nsub\n"
    plain.put(f"{tree}/.", "/tmp/content", create_parents=True)
    assert shell(plain, "ls /tmp/content") == "a\nhard\nlink\nsub\n"


@scenario("container copy out directory")
def test_a_folder_out(plain: firkin.Container, tree: Path, tmp_path: Path) -> None:
    plain.put(tree, "/tmp/back")
    report = plain.get("/tmp/back", tmp_path / "new")
    assert report.entries == 6
    plain.get("/tmp/back", tmp_path / "new")
    plain.get("/tmp/back/.", tmp_path / "new")
    for copy in (tmp_path / "new", tmp_path / "new" / "back"):
        assert sorted(path.name for path in copy.iterdir() if path.name != "back") == ["a", "hard", "link", "sub"]
        assert (copy / "sub" / "b").read_text() == "bb"
        assert (copy / "a").stat().st_ino == (copy / "hard").stat().st_ino
        assert (copy / "a").stat().st_mtime_ns == (tree / "a").stat().st_mtime_ns
        assert (copy / "link").readlink() == Path("../nowhere")
        assert stat.S_IMODE((copy / "a").stat().st_mode) == 0o640


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "src"
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_text("a")
    (tree / "a").chmod(0o640)
    os.utime(tree / "a", ns=(0, 1_234_567_890_123_456_789))
    os.link(tree / "a", tree / "hard")
    (tree / "sub" / "b").write_text("bb")
    (tree / "link").symlink_to("../nowhere")
    return tree


@scenario("container copy file permissions")
@pytest.mark.parametrize("mode", [0o400, 0o755, 0o4711, 0o1777, 0])
def test_modes(mode: int, plain: firkin.Container, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(mode)
    plain.put(tmp_path / "file", "/tmp/moded")
    assert plain.stat("/tmp/moded").mode == 0o100000 | mode
    plain.get("/tmp/moded", tmp_path / "back")
    # Set-id bits don't come out of a guest.
    assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == mode & 0o777


@scenario("container copy empty file")
def test_an_empty_file(plain: firkin.Container, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    plain.put(tmp_path / "empty", "/tmp/empty")
    assert plain.stat("/tmp/empty").size == 0
    plain.get("/tmp/empty", tmp_path / "back")
    assert (tmp_path / "back").stat().st_size == 0


@scenario("container copy empty directory")
def test_an_empty_folder(plain: firkin.Container, tmp_path: Path) -> None:
    (tmp_path / "hollow").mkdir()
    plain.put(tmp_path / "hollow", "/tmp/")
    assert shell(plain, "ls -A /tmp/hollow") == ""
    plain.get("/tmp/hollow", tmp_path / "back")
    assert list((tmp_path / "back").iterdir()) == []


@scenario("container copy binary file")
def test_every_byte(plain: firkin.Container, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 4097 + b"\0\n\r\n\0")
    plain.put(tmp_path / "binary", "/tmp/binary")
    plain.get("/tmp/binary", tmp_path / "back")
    assert filecmp.cmp(tmp_path / "binary", tmp_path / "back", shallow=False)


@scenario("container copy large file")
def test_a_large_file(plain: firkin.Container, tmp_path: Path) -> None:
    """16 MiB of noise, and more than 4 GiB of hole around it."""
    with (tmp_path / "large").open("wb") as file:
        file.seek(5 << 30)
        for _ in range(16):
            file.write(os.urandom(MIB))
        file.truncate(6 << 30)
    plain.put(tmp_path / "large", "/root/large", create_parents=True)
    assert plain.stat("/root/large").size == 6 << 30
    plain.get("/root/large", tmp_path / "back")
    shell(plain, "rm /root/large")
    found = (tmp_path / "back").stat()
    assert (found.st_size, found.st_blocks * 512 < 64 * MIB) == (6 << 30, True)
    with (tmp_path / "large").open("rb") as one, (tmp_path / "back").open("rb") as other:
        for file in (one, other):
            file.seek((5 << 30) - MIB)
        for _ in range(18):
            assert one.read(MIB) == other.read(MIB)


@scenario("container copy multiple files")
def test_many_files(plain: firkin.Container, tmp_path: Path) -> None:
    """Whatever a name may be on this side."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(300):
        (many / f"{number}").write_text(f"{number}" * number)
    for raw in (b"new\nline", b"bad\xff\xfe", b"n" * 255, "ü😀".encode(), b" ", b"-rf", b"\x1b[0m"):
        Path(os.fsdecode(os.fsencode(many) + b"/" + raw)).write_bytes(raw)
    plain.put(many, "/tmp/many")
    plain.get("/tmp/many", tmp_path / "back")
    compared = filecmp.dircmp(many, tmp_path / "back")
    assert (compared.left_only, compared.right_only, compared.diff_files) == ([], [], [])
    assert len(compared.same_files) == 307
