"""Docker's rules for where a copy goes, and a guest that lies about what is there."""

from __future__ import annotations

import errno
import stat
from collections.abc import Awaitable
from pathlib import Path

import pytest

from firkin.core.copy.peer import FileStat, InOptions
from firkin.core.copy.places import guest_path, guest_place, host_place
from firkin.errors import AgentError, InvalidInputError
from firkin.vminitd.link import Link


class Fake:
    """A guest with a few files: by path, "folder", "file" or "-> target"."""

    link: Link

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    async def stat(self, path: str, *, follow: bool = False) -> FileStat:
        found = self._files.get(path, "")
        if follow and found.startswith("-> "):
            return await self.stat(found[3:], follow=True)
        if not found:
            raise AgentError("nothing there", stage="stat", errno=errno.ENOENT)
        kind = {"folder": stat.S_IFDIR, "file": stat.S_IFREG}.get(found, stat.S_IFLNK)
        return FileStat(kind | 0o644, 0, 0, 0, 0, 1, found[3:] if kind == stat.S_IFLNK else "")

    def copy_in(self, directory: str, port: int, options: InOptions) -> Awaitable[object]:
        raise NotImplementedError

    def copy_out(self, path: str, port: int, *, follow: bool) -> Awaitable[object]:
        raise NotImplementedError


GUEST = Fake(
    {
        "/": "folder",
        "/dir": "folder",
        "/file": "file",
        "/to-dir": "-> /dir",
        "/to-file": "-> /dir/real",
        "/dir/real": "file",
        "/dangling": "-> /dir/none",
        "/loop": "-> /loop2",
        "/loop2": "-> loop",
    }
)


@pytest.mark.parametrize(
    ("destination", "folder", "name"),
    [
        ("/dir", "/dir", b"src"),
        ("dir/", "/dir", b"src"),
        ("/", "/", b"src"),
        ("/to-dir", "/to-dir", b"src"),
        ("/new", "/", b"new"),
        ("/dir/../dir/new", "/dir", b"new"),
        ("/../..", "/", b"src"),
        ("/file", "/", b"file"),
        ("/to-file", "/dir", b"real"),
        ("/dangling", "/dir", b"none"),
    ],
)
async def test_a_file_goes_in(destination: str, folder: str, name: bytes) -> None:
    assert await guest_place(GUEST, destination, b"src", source_is_folder=False, create_parents=False) == (folder, name)


@pytest.mark.parametrize(
    ("destination", "source", "expected"),
    [("/dir", b"src", ("/dir", b"src")), ("/dir", None, ("/dir", None)), ("/new/", None, ("/", b"new"))],
)
async def test_a_folder_goes_in(destination: str, source: bytes | None, expected: tuple[str, bytes | None]) -> None:
    assert await guest_place(GUEST, destination, source, source_is_folder=True, create_parents=False) == expected


@pytest.mark.parametrize(
    ("destination", "is_folder", "message"),
    [
        ("/new/", False, "no folder"),
        ("/file/", False, "is no folder"),
        ("/file", True, "can't replace"),
        ("", False, "no path"),
        ("a\0b", False, "no path"),
        ("bad\udcff", False, "not UTF-8"),
    ],
)
async def test_what_does_not_fit(destination: str, is_folder: bool, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        await guest_place(GUEST, destination, b"src", source_is_folder=is_folder, create_parents=False)


async def test_a_guest_whose_links_never_end() -> None:
    class Liar(Fake):
        async def stat(self, path: str, *, follow: bool = False) -> FileStat:
            if follow:
                raise AgentError("loop", stage="stat", errno=errno.ENOENT)
            return FileStat(stat.S_IFLNK | 0o777, -1, -1, -1, 1 << 63, 0, "../" * 1000 + "x" + path[-1])

    with pytest.raises(InvalidInputError, match="too many"):
        await guest_place(Liar({}), "/x", b"src", source_is_folder=False, create_parents=False)


def test_missing_parents_are_made_where_asked() -> None:
    assert guest_path("a//b/./c/..") == "/a/b"


def test_on_this_host(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "to-dir").symlink_to("dir")
    (tmp_path / "to-file").symlink_to("file")
    assert host_place(tmp_path / "dir", "/x/src") == (tmp_path / "dir", b"src", False)
    assert host_place(tmp_path / "to-dir", "/x/src/") == (tmp_path / "dir", b"src", False)
    assert host_place(tmp_path / "dir", "/x/src/.") == (tmp_path / "dir", None, False)
    assert host_place(tmp_path / "dir", "/") == (tmp_path / "dir", None, False)
    assert host_place(tmp_path / "new", "/x") == (tmp_path, b"new", False)
    assert host_place(f"{tmp_path}/new/", "/x") == (tmp_path, b"new", True)
    assert host_place(tmp_path / "to-file", "/x") == (tmp_path, b"file", False)
    for wrong in (f"{tmp_path}/none/x", f"{tmp_path}/file/"):
        with pytest.raises(InvalidInputError):
            host_place(wrong, "/x")
