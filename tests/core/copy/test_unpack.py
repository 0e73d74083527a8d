"""A hostile archive on this host: whatever it names, nothing is written but below the place that the host chose."""

from __future__ import annotations

import fcntl
import io
import os
import stat
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.core.copy.unpack import CopyBounds, HostPlace, unpack, unpack_content
from firkin.errors import FirkinError, InvalidInputError

BOUNDS = CopyBounds(1 << 30, 1000)
MIB = 1 << 20


def member(name: str, content: bytes = b"", **values: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o755 if values.get("type") == tarfile.DIRTYPE else 0o644
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def folder(name: str, **values: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, **values)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def take(data: bytes, at: HostPlace, bounds: CopyBounds = BOUNDS) -> int:
    return unpack(io.BytesIO(data), at, bounds, preserve_owner=False).entries


def names(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@pytest.fixture
def place(tmp_path: Path) -> HostPlace:
    """A folder that is not there yet, beside things that must stay as they are."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "parent").mkdir()
    return HostPlace(tmp_path / "parent", b"new")


HOSTILE = {
    "dotdot": (member("t/../../secret", b"x"),),
    "dotdot below": (folder("t/a"), member("t/a/../../../secret", b"x")),
    "absolute": (member("/etc/firkin-was-here", b"x"),),
    "other top": (member("u/x", b"x"),),
    "top again": (folder("t/"),),
    "symlink, then through it": (link("t/out", "../.."), member("t/out/secret", b"x")),
    "absolute symlink, then through it": (link("t/out", "/tmp"), member("t/out/firkin-was-here", b"x")),
    "symlink over a folder's place": (folder("t/a"), link("t/a", "/tmp")),
    "folder where a symlink is": (link("t/a", "/tmp"), folder("t/a"), member("t/a/x", b"x")),
    "hard link out": (link("t/hard", "t/../../secret", tarfile.LNKTYPE),),
    "hard link to an absolute name": (link("t/hard", "/etc/passwd", tarfile.LNKTYPE),),
    "hard link through a symlink": (link("t/out", "../.."), link("t/hard", "t/out/secret", tarfile.LNKTYPE)),
    "hard link to a folder": (folder("t/a"), link("t/hard", "t/a", tarfile.LNKTYPE)),
    "hard link to nothing": (link("t/hard", "t/none", tarfile.LNKTYPE),),
    "device": (member("t/disk", type=tarfile.BLKTYPE, devmajor=8),),
    "character device": (member("t/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),),
    "file over a folder": (folder("t/a"), member("t/a/b", b"x"), member("t/a", b"x")),
    "name too long": (member("t/" + "n" * 256, b"x"),),
    "too deep": (member("t/" + "d/" * 300 + "x", b"x"),),
    "empty symlink": (link("t/l", ""),),
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_leads_elsewhere_is_refused_and_nothing_stays(
    members: tuple[tuple[tarfile.TarInfo, bytes], ...], place: HostPlace
) -> None:
    with pytest.raises(FirkinError):
        take(archive(folder("t"), member("t/first", b"1"), *members), place)
    assert names(place.folder.parent) == ["parent", "secret"]
    assert (place.folder.parent / "secret").read_text() == "secret"


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_nor_into_a_folder_that_is_there(members: tuple[tuple[tarfile.TarInfo, bytes], ...], place: HostPlace) -> None:
    with pytest.raises(FirkinError):
        take(archive(folder("t"), *members), HostPlace(place.folder, None))
    assert (place.folder.parent / "secret").read_text() == "secret"
    assert names(place.folder.parent)[0] == "parent"
    assert not any(name.startswith("parent/.firkin") for name in names(place.folder.parent))


def test_hard_links_only_to_what_came_along(place: HostPlace) -> None:
    (place.folder / "mine").write_text("mine")
    with pytest.raises(FirkinError, match="not in the archive"):
        take(archive(folder("t"), link("t/hard", "t/mine", tarfile.LNKTYPE)), HostPlace(place.folder, None))
    take(archive(folder("t"), member("t/a", b"a"), link("t/b", "t/a", tarfile.LNKTYPE)), HostPlace(place.folder, None))
    assert (place.folder / "a").stat().st_nlink == 2
    assert (place.folder / "mine").stat().st_nlink == 1


def test_the_callers_own_symlink_is_not_written_through(place: HostPlace, tmp_path: Path) -> None:
    (place.folder / "out").symlink_to(tmp_path)
    with pytest.raises(FirkinError, match="symbolic link"):
        take(archive(folder("t"), member("t/out/secret", b"x")), HostPlace(place.folder, None))
    take(archive(folder("t"), member("t/out", b"a file now")), HostPlace(place.folder, None))
    assert (place.folder / "out").read_bytes() == b"a file now"
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_folder_exchanged_for_a_symlink_meanwhile_is_not_followed(place: HostPlace, tmp_path: Path) -> None:
    """The guest may share the destination, and so exchange what is in it while its archive is read."""
    (place.folder / "a").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()

    class Exchanging:
        def __init__(self, data: bytes) -> None:
            self.inner = io.BytesIO(data)

        def read(self, size: int, /) -> bytes:
            if self.inner.tell() > MIB and not (place.folder / "a").is_symlink():
                (place.folder / "a").rename(place.folder / "moved")
                (place.folder / "a").symlink_to(outside)
            return self.inner.read(min(size, 4096))

    members = folder("t"), folder("t/a"), member("t/a/x", bytes(2 * MIB)), member("t/a/y", b"y"), folder("t/a/z")
    data = Exchanging(archive(*members, member("t/a/z/w", b"w")))
    with suppress(FirkinError):
        unpack(data, HostPlace(place.folder, None), BOUNDS, preserve_owner=False)
    assert (place.folder / "a").is_symlink()
    assert names(outside) == []


def test_set_id_bits_and_owners_are_not_the_guests(place: HostPlace) -> None:
    take(archive(folder("t", mode=0o7777), member("t/su", b"x", mode=0o6755, uid=4242, gid=4242)), place)
    top, file = (place.folder / "new").stat(), (place.folder / "new" / "su").stat()
    assert (stat.S_IMODE(top.st_mode), stat.S_IMODE(file.st_mode)) == (0o1777, 0o755)
    assert (file.st_uid, file.st_gid) == (os.geteuid(), os.getegid())


def test_folders_that_were_there_keep_their_modes(place: HostPlace) -> None:
    (place.folder / "sub").mkdir(mode=0o700)
    take(archive(folder("t", mode=0o777), folder("t/sub", mode=0o777)), HostPlace(place.folder, None))
    assert stat.S_IMODE((place.folder / "sub").stat().st_mode) == 0o700


def test_duplicates_the_last_wins(place: HostPlace) -> None:
    take(archive(folder("t"), member("t/a", b"one"), link("t/a", "x"), member("t/a", b"three")), place)
    assert (place.folder / "new" / "a").read_bytes() == b"three"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (archive(folder("t"), member("t/a", b"x" * MIB)), "raise limit"),
        (archive(folder("t"), *(member(f"t/{n}") for n in range(20))), "raise max_entries"),
    ],
    ids=["bytes", "entries"],
)
def test_limits(data: bytes, message: str, place: HostPlace) -> None:
    with pytest.raises(FirkinError, match=message):
        take(data, place, CopyBounds(MIB // 2, 20))
    assert names(place.folder) == []


def sparse(real_size: int, *regions: tuple[int, int]) -> bytes:
    text = "".join(f"{number}\n" for number in (len(regions), *(n for region in regions for n in region))).encode()
    text += bytes(-len(text) % 512)
    info, _ = member("GNUSparseFile.0/t")
    info.size = len(text) + sum(length for _, length in regions)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "t",
        "GNU.sparse.realsize": str(real_size),
    }
    return archive((info, text + b"d" * (info.size - len(text))))


def test_holes_are_holes(place: HostPlace) -> None:
    take(sparse(1 << 29, (MIB, 4096)), place)
    found = (place.folder / "new").stat()
    assert (found.st_size, found.st_blocks * 512) == (1 << 29, 4096)


def test_a_sparse_bomb_is_bounded(place: HostPlace) -> None:
    with pytest.raises(FirkinError, match="raise limit"):
        take(sparse(1 << 62, (0, 512)), place)
    with pytest.raises(FirkinError, match="not in order"):
        take(sparse(4096, (0, 512), (0, 512)), place)
    with pytest.raises(FirkinError, match="raise limit"):
        unpack_content(io.BytesIO(sparse(1 << 62, (0, 512))), io.BytesIO(), BOUNDS)
    assert names(place.folder) == []


class Endless:
    """Never ends: zeros behind a whole archive, or one header after the other."""

    def __init__(self, head: bytes, block: bytes) -> None:
        self._left, self._block, self.count = head, block, 0

    def read(self, size: int) -> bytes:
        data, self._left = self._left[:size], self._left[size:]
        data = data or self._block[:size]
        self.count += len(data)
        return data


@pytest.mark.parametrize(
    ("head", "block", "most"),
    [
        (archive(folder("t")), bytes(MIB), 4 * MIB),
        (archive(folder("t"))[:512], archive(member("t/x"))[:512], 4 * MIB),
        (archive(folder("t"))[:512], member("t/x", size=1 << 40)[0].tobuf(tarfile.GNU_FORMAT) + bytes(MIB), 2 << 30),
    ],
    ids=["zeros", "headers", "content"],
)
def test_streams_without_end(head: bytes, block: bytes, most: int, place: HostPlace) -> None:
    source = Endless(head, block)
    with pytest.raises(FirkinError):
        unpack(source, place, CopyBounds(64 * MIB, 1000), preserve_owner=False)
    assert source.count < most
    assert names(place.folder) == []


WHOLE = archive(folder("t"), member("t/a", b"a" * 3000), link("t/l", "a"), member("t/b", b"b"))


@pytest.mark.parametrize("cut", [0, 100, 512, 1024, 1536, 4000, 5120, len(WHOLE.rstrip(b"\0")) + 511])
def test_a_part_of_an_archive_is_none(cut: int, place: HostPlace) -> None:
    with pytest.raises(FirkinError):
        take(WHOLE[: cut // 512 * 512 if cut > 5120 else cut], place)
    assert names(place.folder) == []


@given(st.binary(max_size=600), st.integers(0, len(WHOLE)))
def test_garbage_in_an_archive_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    top = tmp_path_factory.mktemp("fuzz")
    (top / "parent").mkdir()
    try:
        take(WHOLE[:at] + noise + WHOLE[at + len(noise) :], HostPlace(top / "parent", b"new"))
    except FirkinError:
        assert names(top) == ["parent"]
    else:
        assert names(top)[:2] == ["parent", "parent/new"]


def test_a_file_in_place_of_a_file(place: HostPlace) -> None:
    (place.folder / "new").write_text("old")
    with (place.folder / "new").open() as old:
        take(archive(member("t", b"fresh", mtime=1_000_000_000.5)), place)
        assert old.read() == "old"
    assert (place.folder / "new").read_text() == "fresh"
    assert (place.folder / "new").stat().st_mtime_ns == 1_000_000_000_500_000_000
    with pytest.raises(FirkinError, match="more than was asked"):
        take(archive(member("t", b"again"), member("t/x", b"x")), place)


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_not(place: HostPlace) -> None:
    dead, alive = place.folder / ".firkin-get-dead", place.folder / ".firkin-get-alive"
    (dead / "sub").mkdir(parents=True)
    (dead / "sub" / "file").write_text("half")
    (dead / "sub").chmod(0)
    alive.mkdir()
    descriptor = os.open(alive, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    take(archive(folder("t")), place)
    os.close(descriptor)
    assert names(place.folder) == [".firkin-get-alive", "new"]


def test_times_out_of_range_are_cut(place: HostPlace) -> None:
    take(archive(member("t", b"x", mtime=1 << 62), format=tarfile.GNU_FORMAT), place)
    assert (place.folder / "new").read_bytes() == b"x"


def test_content_is_one_regular_file_with_its_holes(place: HostPlace) -> None:
    got = io.BytesIO()
    unpack_content(io.BytesIO(sparse(12_000, (4096, 512))), got, BOUNDS)
    assert got.getvalue() == bytes(4096) + b"d" * 512 + bytes(12_000 - 4096 - 512)
    with pytest.raises(InvalidInputError, match="is not a regular file"):
        unpack_content(io.BytesIO(archive(link("t", "elsewhere"))), io.BytesIO(), BOUNDS)


def test_a_guest_that_sends_another_kind_than_was_asked_for(place: HostPlace, tmp_path: Path) -> None:
    """It said that there is a folder, or a file, and sends something else."""
    with pytest.raises(InvalidInputError, match="t is not a folder"):
        take(archive(member("t", b"file")), HostPlace(place.folder, None))
    with pytest.raises(InvalidInputError, match=r"there is no folder .*new .make it first"):
        take(archive(member("t", b"file")), HostPlace(place.folder, b"new", must_be_folder=True))
    with pytest.raises(InvalidInputError, match="a folder can't replace the file"):
        take(archive(folder("t")), HostPlace(tmp_path, b"secret"))
    with pytest.raises(InvalidInputError, match=r"can't copy into .*none: No such file"):
        take(archive(member("t", b"file")), HostPlace(tmp_path / "none", b"new"))
    assert names(tmp_path) == ["parent", "secret"]


def test_links_to_nowhere_and_devices_are_not_made(place: HostPlace) -> None:
    for wrong in (link("t/a", ""), member("t/a", type=tarfile.CHRTYPE), member("t/a", type=tarfile.BLKTYPE)):
        with pytest.raises(FirkinError):
            take(archive(folder("t"), wrong), place)
    assert names(place.folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_can_keep_the_owners(place: HostPlace) -> None:
    data = archive(folder("t", uid=7, gid=8), member("t/a", b"x", uid=9, gid=10), link("t/b", "a"))
    unpack(io.BytesIO(data), place, BOUNDS, preserve_owner=True)
    found = [(place.folder / "new" / name).lstat() for name in (".", "a", "b")]
    assert [(each.st_uid, each.st_gid) for each in found] == [(7, 8), (9, 10), (0, 0)]
