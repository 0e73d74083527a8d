"""A tree of this host as a tar, read back by the standard library: also while it changes."""

from __future__ import annotations

import io
import os
import resource
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firkin.core.copy.header import header
from firkin.core.copy.pack import pack_content, pack_tree
from firkin.core.copy.report import CopyReport
from firkin.errors import FirkinError, InvalidInputError

MIB = 1 << 20


def packed(
    source: Path, name: bytes | None = b"t", *, follow: bool = False, meanwhile: Callable[[], object] | None = None
) -> tuple[CopyReport, dict[str, tarfile.TarInfo], tarfile.TarFile]:
    """The report, and the archive. `meanwhile` runs once, at the first piece that is handed on."""
    out = io.BytesIO()
    pending = [meanwhile] if meanwhile else []

    def put(data: bytes) -> None:
        if pending:
            pending.pop()()
        out.write(data)

    report = pack_tree(os.fspath(source), name, put, follow=follow)
    assert out.tell() % 512 == 0
    tar = opened(out)
    return report, {found.name: found for found in tar}, tar


def opened(out: io.BytesIO) -> tarfile.TarFile:
    return tarfile.TarFile(fileobj=io.BytesIO(out.getvalue()), errors="surrogateescape")


def content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def test_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir(mode=0o750)
    (tree / "file").write_bytes(b"content" * 100_000)
    (tree / "file").chmod(0o4640)
    os.utime(tree / "file", ns=(0, 1_234_567_890_123_456_789))
    (tree / "empty").touch()
    os.utime(tree / "empty", ns=(0, -1_500_000_000))
    (tree / "link").symlink_to("l" * 200)
    os.link(tree / "file", tree / "hard")
    os.mkfifo(tree / "fifo")
    report, found, tar = packed(tree)
    assert report == CopyReport(6, 700_000)
    first = "file" if found["t/file"].isreg() else "hard"
    other = found["t/hard" if first == "file" else "t/file"]
    assert (other.type, other.linkname) == (tarfile.LNKTYPE, f"t/{first}")
    assert (found[f"t/{first}"].mode, found["t"].mode) == (0o4640, 0o750)
    assert found[f"t/{first}"].pax_headers["mtime"] == "1234567890.123456789"
    assert found["t/empty"].mtime == -1.5
    assert found["t/link"].linkname == "l" * 200
    assert found["t/fifo"].isfifo()
    assert content(tar, f"t/{first}") == b"content" * 100_000


@pytest.mark.parametrize(
    "raw", [b"new\nline", b"bad\xff\xfe", b"n" * 255, "ü€😀".encode(), b" ", b"-rf", b"a\\b", b"\x1b[0m"]
)
def test_any_name(raw: bytes, tmp_path: Path) -> None:
    inner = os.fsencode(tmp_path) + b"/" + raw
    Path(os.fsdecode(inner)).mkdir()
    Path(os.fsdecode(inner + b"/" + raw)).write_bytes(raw)
    _, found, tar = packed(tmp_path)
    name = os.fsdecode(b"t/" + raw + b"/" + raw)
    assert name in found
    assert content(tar, name) == raw


def test_the_content_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    report, found, _ = packed(tmp_path, None)
    assert list(found) == ["a"]
    assert report.entries == 1


def test_sparse_files_of_any_size(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(6 << 30)
        file.write(b"middle")
        file.truncate(9 << 30)
    report, found, _ = packed(tmp_path / "sparse")
    assert report.bytes < MIB
    assert (found["t"].size, found["t"].issparse()) == (9 << 30, True)
    assert found["t"].sparse is not None
    assert found["t"].sparse[0][0] == 6 << 30


def test_a_size_that_octal_digits_do_not_hold() -> None:
    about = os.stat_result((0o644, 0, 0, 1, 1 << 22, 1 << 30, 0, 0, 0, 0), {"st_mtime_ns": 0})
    info = tarfile.TarInfo.frombuf(header(b"big", b"0", about, size=9 << 30), "utf-8", "strict")
    assert (info.size, info.uid, info.gid) == (9 << 30, 1 << 22, 1 << 30)


def test_a_file_that_shrinks_is_filled_up(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 3 * MIB)
    report, found, tar = packed(tmp_path / "a", meanwhile=lambda: os.truncate(tmp_path / "a", MIB))
    assert found["t"].size == 3 * MIB
    assert content(tar, "t").rstrip(b"\0") == b"a" * MIB
    assert report.notes == ("t became shorter while it was read, its end is zeros", "t changed while it was read")


def test_a_file_that_grows_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 3 * MIB)

    def grow() -> None:
        with (tmp_path / "a").open("ab") as file:
            file.write(b"more")

    report, _, tar = packed(tmp_path / "a", meanwhile=grow)
    assert content(tar, "t") == b"a" * 3 * MIB
    assert report.notes == ("t changed while it was read",)


def test_what_vanishes_is_noted(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number:0200}").write_bytes(b"x" * 600)
    ends: list[str] = []

    def remove() -> None:
        for file in list(tmp_path.iterdir()):
            file.unlink()
            ends.append(file.name)

    report, found, _ = packed(tmp_path, meanwhile=remove)
    assert report.notes
    assert all(note.endswith("vanished before it was read") for note in report.notes)
    assert len(found) == report.entries < 2001


def test_a_folder_exchanged_for_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret").write_text("secret")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"x" * 3 * MIB)
    (tree / "b").mkdir()
    names = [entry.name for entry in os.scandir(tree)]

    def exchange() -> None:
        (tree / "b").rmdir()
        (tree / "b").symlink_to(tmp_path / "out")

    _, found, _ = packed(tree, meanwhile=exchange)
    assert not any("secret" in name for name in found), names


def test_sockets_are_left_out_and_devices_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        report, found, _ = packed(tmp_path)
    assert (list(found), report.notes) == (["t"], ("t/s is a socket and was left out",))
    with pytest.raises(InvalidInputError, match="device"):
        packed(Path("/dev/null"))


def test_a_link_is_copied_or_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert packed(tmp_path / "link")[1]["t"].issym()
    assert packed(tmp_path / "link", follow=True)[1]["t"].isreg()


def test_content_without_a_file() -> None:
    out = io.BytesIO()
    file = io.BytesIO(b"skipped" + b"x" * 3 * MIB)
    file.seek(7)
    assert pack_content(file, b"name", 0o600, lambda data: out.write(data) and None).bytes == 3 * MIB
    tar = opened(out)
    assert (content(tar, "name"), tar.getmember("name").mode) == (b"x" * 3 * MIB, 0o600)
    read_end, write_end = os.pipe()
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe, pytest.raises(InvalidInputError, match="seekable"):
        pack_content(pipe, b"name", 0o600, lambda data: None)


@pytest.fixture
def few_files() -> Iterator[None]:
    """At most 64 open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_tree_deeper_than_the_open_files(tmp_path: Path, few_files: None) -> None:
    deep = tmp_path / "/".join(["d"] * 80)
    deep.mkdir(parents=True)
    with pytest.raises(FirkinError, match=r"too deep to be copied \(raise the limit of open files\)"):
        packed(tmp_path)
    # Nothing stayed open.
    assert packed(tmp_path / "/".join(["d"] * 70))[0].entries == 11


@pytest.mark.parametrize(("name", "says"), [("none", "there is no .*none to copy"), ("file/x", "Not a directory")])
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FirkinError, match=says):
        pack_tree(f"{tmp_path}/{name}", b"t", lambda data: None, follow=False)


def test_a_device_in_a_tree_ends_the_copy() -> None:
    # It holds nothing else, whoever looks.
    with pytest.raises(InvalidInputError, match="is a device node"):
        pack_tree("/dev/pts", b"t", lambda data: None, follow=False)
