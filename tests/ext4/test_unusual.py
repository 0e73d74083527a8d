"""Layers that tar programs seldom write: old GNU members, access control lists, odd streams, headers cut short."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from firkin.errors import ImageError
from firkin.ext4 import ImageReader, write_image
from firkin.ext4._xattr import acl_from_disk
from tests.ext4.snapshots import fsck
from tests.ext4.tars import Entry, entry, folder, tar

BLOCK = 512
SIZE = 16 << 20
_GROUP, _OTHER, _USER, _MASK, _OWNER = 4, 32, 2, 16, 1
_NOBODY = 0xFFFFFFFF
# As setxattr(2) takes it: version 2, then tag, permissions and id of each entry (include/uapi/linux/posix_acl_xattr.h).
ACL = b"\2\0\0\0" + b"".join(
    struct.pack("<HHI", *each)
    for each in (
        (_OWNER, 6, _NOBODY),
        (_USER, 4, 1000),
        (_GROUP, 4, _NOBODY),
        (_MASK, 4, _NOBODY),
        (_OTHER, 0, _NOBODY),
    )
)


def image_of(tmp_path: Path, layer: object) -> Path:
    """The image of one layer, whole by e2fsck's judgement."""
    image = tmp_path / "image"
    write_image([layer], image, size=SIZE)  # type: ignore[list-item]
    fsck(image)
    return image


def contents(image: Path) -> dict[str, bytes | None]:
    """Each path with its content, `None` for what is no file."""
    with ImageReader(image) as reader:
        found = [(path, status) for path, status in reader.walk() if not path.startswith("/lost+found")]
        return {path: reader.read(path) if status.mode & 0o170000 == 0o100000 else None for path, status in found}


def test_members_of_old_gnu_archives(tmp_path: Path) -> None:
    """A label is stepped over, a dump's folder is a folder, an unknown type is a regular file (POSIX, ustar)."""
    members = [
        entry("label", b"V"),
        entry("dump", b"D", content=b"Yfile\0\0"),
        entry("dump/contiguous", b"7", content=b"seven"),
        entry("odd", b"Z", content=b"unknown"),
    ]
    found = contents(image_of(tmp_path, io.BytesIO(tar(members, tarfile.GNU_FORMAT))))
    assert found == {"/": None, "/dump": None, "/dump/contiguous": b"seven", "/odd": b"unknown"}


def test_access_control_lists_are_as_the_kernel_wants_them(tmp_path: Path) -> None:
    """debugfs reads the list from the disk; what our reader extracts is what was put in."""
    attributes = {"system.posix_acl_access": ACL, "user.note": b"=%3D"}
    image = image_of(tmp_path, io.BytesIO(tar([folder("d"), entry("d/f", xattrs=attributes)])))
    shown = subprocess.run(["debugfs", "-R", "ea_list /d/f", image], capture_output=True, text=True, timeout=60)
    assert "system.posix_acl_access (28)" in shown.stdout
    with ImageReader(image) as reader:
        assert reader.xattrs("/d/f") == attributes


@pytest.mark.parametrize("disk", [b"", b"\2\0\0\0", b"\1\0\0\0\2\0\4\0", b"\1\0\0\0\1\0"])
def test_malformed_lists_of_an_image_are_refused(disk: bytes) -> None:
    with pytest.raises(ImageError, match="access control list"):
        acl_from_disk(disk)


class OnlyRead:
    """A stream without `readinto`, of which each read gives `extra` bytes more than it should."""

    def __init__(self, data: bytes, extra: int = 0) -> None:
        self._file = io.BytesIO(data)
        self._extra = extra

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, 1000) + self._extra)


def test_a_stream_that_can_only_be_read(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    layer = OnlyRead(tar([entry("large", content=content), entry("small", content=b"s")]))
    assert contents(image_of(tmp_path, layer)) == {"/": None, "/large": content, "/small": b"s"}


def test_a_stream_that_gives_too_much_is_refused(tmp_path: Path) -> None:
    class TooMuch(OnlyRead):
        def read(self, size: int) -> bytes:
            return super().read(size) + bytes(size)

    with pytest.raises(ImageError, match="more than it was asked for"):
        image_of(tmp_path, TooMuch(tar([entry("a")])))


def raw(name: bytes, kind: bytes, content: bytes) -> bytes:
    """One member as bytes, whatever is in it."""
    info, _ = entry(name.decode(), kind, content)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % BLOCK)


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (raw(b"x", b"x", b"10 path=a\n\0\0\0"), "after an extended header"),
        (raw(b"x", b"x", b"path=a\n") + raw(b"f", b"0", b""), "without a length"),
        (raw(b"x", b"x", b"99 path=a\n") + raw(b"f", b"0", b""), "does not fit"),
        (raw(b"x", b"x", b"10 path\n  ") + raw(b"f", b"0", b""), "does not fit"),
        (raw(b"f", b"0", b"") + b"half a header", "in the middle of a header"),
        (raw(b"x", b"L", b"n" * 8192) + raw(b"f", b"0", b""), "an extended tar header takes more"),
        (raw(b"f", b"0", b"content")[:-BLOCK] + b"con", "ends"),
    ],
)
def test_headers_that_are_cut_short_or_wrong(tmp_path: Path, layer: bytes, what: str) -> None:
    with pytest.raises(ImageError, match=what):
        image_of(tmp_path, io.BytesIO(layer))


def test_a_global_header_holds_until_a_member_says_otherwise(tmp_path: Path) -> None:
    everywhere = raw(b"g", b"g", b"16 mtime=1000.5\n")
    own = raw(b"x", b"x", b"14 mtime=2000\n")
    layer = everywhere + raw(b"a", b"0", b"") + own + raw(b"b", b"0", b"") + raw(b"c", b"0", b"")
    with ImageReader(image_of(tmp_path, io.BytesIO(layer))) as reader:
        times = [reader.stat(f"/{name}").mtime_ns for name in "abc"]
    assert times == [1000_500_000_000, 2000_000_000_000, 1000_500_000_000]


def long(members: list[Entry]) -> bytes:
    return tar(members, tarfile.GNU_FORMAT)


def test_long_names_and_targets_in_gnu_form(tmp_path: Path) -> None:
    deep = "/".join(["folder-with-a-name"] * 12)
    target = "t" * 300
    members = [entry(f"{deep}/f", content=b"deep"), entry("link", tarfile.SYMTYPE, linkname=target)]
    with ImageReader(image_of(tmp_path, io.BytesIO(long(members)))) as reader:
        assert reader.read(f"/{deep}/f") == b"deep"
        assert reader.readlink("/link") == target
