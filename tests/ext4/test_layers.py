"""What layers do to each other: whiteouts, replacement, links through symlinks; and what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from firkin.errors import ImageError
from firkin.ext4 import Ext4Writer, ImageReader, write_image
from tests.ext4.snapshots import fsck, of_image
from tests.ext4.tars import Entry, bulk, entry, folder, hardlink, opaque, symlink, tar, whiteout

SIZE = 64 << 20


def convert(tmp_path: Path, *layers: list[Entry]) -> Path:
    image = tmp_path / "image"
    write_image([io.BytesIO(tar(layer)) for layer in layers], image, size=SIZE)
    fsck(image)
    return image


def paths(tmp_path: Path, *layers: list[Entry]) -> list[str]:
    return sorted(of_image(convert(tmp_path, *layers)).keys() - {"/"})


def test_whiteout_after_and_before_what_the_same_layer_adds(tmp_path: Path) -> None:
    lower = [folder("d"), entry("d/old"), entry("d/both")]
    for order in ([whiteout("d"), folder("d"), entry("d/new")], [folder("d"), entry("d/new"), whiteout("d")]):
        assert paths(tmp_path, lower, order) == ["/d", "/d/new"]


def test_a_layer_may_end_behind_the_content_of_its_last_file(tmp_path: Path) -> None:
    """As `umoci insert` leaves it, without padding; not before."""
    layer = tar([entry("f", content=b"x" * 700)])[: 512 + 700]
    image = tmp_path / "image"
    write_image([io.BytesIO(layer), io.BytesIO(tar([entry("g")]))], image, size=SIZE)
    fsck(image)
    with ImageReader(image) as reader:
        assert reader.read("/f") == b"x" * 700
    with pytest.raises(ImageError, match="in the middle of a file"):
        write_image([io.BytesIO(layer[:-1])], tmp_path / "other", size=SIZE)


def test_opaque_marker_may_come_last(tmp_path: Path) -> None:
    lower = [folder("d"), entry("d/old"), folder("d/sub"), entry("d/sub/old")]
    upper = [folder("d"), entry("d/sub/new"), opaque("d")]
    image = convert(tmp_path, lower, upper)
    assert sorted(of_image(image)) == ["/", "/d", "/d/sub", "/d/sub/new"]


def test_whiteout_of_the_lowest_layer_does_nothing(tmp_path: Path) -> None:
    assert paths(tmp_path, [entry("a"), whiteout("a"), whiteout("b"), opaque("c")]) == ["/a"]


def test_aufs_files_are_left_out(tmp_path: Path) -> None:
    assert paths(tmp_path, [entry("a"), folder(".wh..wh.plnk"), entry(".wh..wh.aufs", content=b"x" * 3000)]) == ["/a"]


def test_hidden_hard_link_leaves_the_other_name(tmp_path: Path) -> None:
    image = convert(tmp_path, [entry("a", content=b"kept"), hardlink("b", "a")], [whiteout("a")], [hardlink("c", "b")])
    with ImageReader(image) as reader:
        assert reader.read("/c") == b"kept"
        assert reader.stat("/b").nlink == 2
        assert sorted(reader.iterdir("/")) == ["b", "c"]


def test_file_and_folder_replace_each_other(tmp_path: Path) -> None:
    lower = [folder("x"), entry("x/in"), entry("y")]
    assert paths(tmp_path, lower, [entry("x"), folder("y"), entry("y/in")]) == ["/x", "/y", "/y/in"]


def test_missing_parents_are_made(tmp_path: Path) -> None:
    found = of_image(convert(tmp_path, [entry("a/b/c")]))
    assert found["/a/b"].mode == 0o40755
    assert found["/a/b"].links == 2
    assert found["/a"].links == 3


def test_root_takes_its_own_attributes(tmp_path: Path) -> None:
    found = of_image(convert(tmp_path, [folder("./", mode=0o711, uid=7, mtime=99)]))
    assert (found["/"].mode, found["/"].uid, found["/"].mtime_ns) == (0o40711, 7, 99 * 10**9)


def test_symlinked_parents_stay_inside(tmp_path: Path) -> None:
    """As `tar` chrooted into the tree would do it; the upward steps end at the root."""
    lower = [folder("usr"), symlink("lib", "usr/lib"), symlink("out", "../../../etc"), symlink("abs", "/usr")]
    upper = [entry("lib/one"), entry("out/passwd"), entry("abs/two"), hardlink("abs/three", "lib/one")]
    found = of_image(convert(tmp_path, lower, upper))
    assert {"/usr/lib/one", "/etc/passwd", "/usr/two", "/usr/three"} < found.keys()
    assert found["/usr/three"].names == ("/usr/lib/one", "/usr/three")


def test_folder_replaces_symlink_to_folder(tmp_path: Path) -> None:
    assert paths(tmp_path, [folder("a"), entry("a/in"), symlink("l", "a")], [folder("l")]) == ["/a", "/a/in", "/l"]


def test_cached_paths_forget_symlinks_that_go(tmp_path: Path) -> None:
    lower = [folder("a"), folder("b"), symlink("l", "a"), hardlink("l2", "l")]
    upper = [entry("l/one"), symlink("l", "b"), entry("l/two")]
    assert set(paths(tmp_path, lower, upper)) >= {"/a/one", "/b/two"}


def test_replaced_blocks_are_free_and_empty(tmp_path: Path) -> None:
    """What a later layer replaces leaves neither space in use nor its bytes in the image."""
    secret = b"secret! " * 100_000
    image = tmp_path / "image"
    layers = [
        [entry("big", content=secret), entry("small", content=secret[:3000]), symlink("s", "secret! " * 20)],
        [entry("big", content=b"b"), whiteout("small"), whiteout("s")],
    ]
    report = write_image([io.BytesIO(tar(layer)) for layer in layers], image, size=SIZE)
    alone = write_image([io.BytesIO(tar([entry("big", content=b"b")]))], tmp_path / "alone", size=SIZE)
    fsck(image)
    assert (report.inodes, alone.inodes) == (2, 2)
    assert report.blocks_used == alone.blocks_used
    assert b"secret! secret!" not in image.read_bytes()


def test_shared_xattr_blocks_are_counted(tmp_path: Path) -> None:
    """Some 1500 files with equal attributes need two blocks, since one takes 1024; removed ones give theirs back."""
    label = {"user.label": b"l" * 400}
    many = [entry(f"f{number}", xattrs=label) for number in range(1500)]
    gone = [whiteout(f"f{number}") for number in range(1490)]
    assert len(paths(tmp_path, many, gone)) == 10


def test_removed_inodes_are_used_again(tmp_path: Path) -> None:
    image = convert(
        tmp_path, [folder("d"), *[entry(f"d/{n}") for n in range(50)]], [whiteout("d"), entry("n")], [entry("m")]
    )
    with ImageReader(image) as reader:
        assert max(status.inode for _, status in reader.walk()) < 70


@pytest.mark.parametrize(
    "members",
    [
        [entry("../up")],
        [entry("a/../../up")],
        [entry("n" * 256)],
        [entry("/".join(["long"] * 1000))],
        [hardlink("a", "missing")],
        [hardlink("a", "../x")],
        [folder("d"), hardlink("a", "d")],
        [symlink("a", "b"), symlink("b", "a"), entry("a/x")],
        [symlink("a", "t" * 4096)],
        [entry(".wh.")],
        [entry("d/.wh...")],
        [entry("./")],
        [entry("x", xattrs={"user.big": b"v" * 5000})],
        [entry("x", xattrs={"odd.name": b"v"})],
        [entry("x", xattrs={"system.posix_acl_access": b"v"})],
        [entry("x", tarfile.CHRTYPE, devmajor=5000, devminor=0)],
        [entry("x", uid=1 << 32)],
        [entry("x", b"M", content=b"part of a multi-volume tar")],
    ],
)
def test_refused(tmp_path: Path, members: list[Entry]) -> None:
    with pytest.raises(ImageError) as caught:
        write_image([io.BytesIO(tar(members))], tmp_path / "image", size=SIZE)
    assert "\n" not in str(caught.value)


def test_too_many_hard_links(tmp_path: Path) -> None:
    links = tar([entry("a")])[:512] + bulk(
        [b"l%d" % number for number in range(65_000)], kind=tarfile.LNKTYPE, target=b"a"
    )
    with pytest.raises(ImageError, match="65000 hard links"):
        write_image([io.BytesIO(links)], tmp_path / "image", size=SIZE)


def test_a_failed_writer_is_of_no_use(tmp_path: Path) -> None:
    with Ext4Writer(tmp_path / "image", size=SIZE) as writer:
        with pytest.raises(ImageError):
            writer.add_layer(io.BytesIO(b"not a tar" * 100))
        with pytest.raises(Exception, match="has failed"):
            writer.finish()
    with pytest.raises(ImageError, match="not an ext4 image"):
        ImageReader(tmp_path / "image")
