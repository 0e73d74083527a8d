"""Mounts as values and as the command line writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.core.mount import FileMount, Mount
from firkin.core.mount_parse import parse_mount, parse_tmpfs, parse_volume
from firkin.core.option_inputs import container_options
from firkin.core.spec import SpecMount
from firkin.errors import InvalidInputError
from firkin.types import GuestPath, Size

TMPFS = ("nosuid", "nodev", "noexec")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/src:/dst", Mount.bind("/src", "/dst")),
        ("/src:/dst:ro", Mount.bind("/src", "/dst", read_only=True)),
        ("/src:/dst:ro,z,rshared", Mount.bind("/src", "/dst", read_only=True, options=["rshared"])),
        ("./here:/dst", Mount.bind(Path.cwd() / "here", "/dst")),
        ("~/x:/dst", Mount.bind(Path.home() / "x", "/dst")),
        ("data:/dst:noexec", Mount.volume("data", "/dst", options=["noexec"])),
        ("/dst", Mount.volume("", "/dst")),
    ],
)
def test_volumes(text: str, mount: Mount) -> None:
    assert parse_volume(text) == mount


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,source=/a,target=/b,readonly", Mount.bind("/a", "/b", read_only=True, options=["rprivate"])),
        ("type=bind,src=/a,dst=/b,ro=false,bind-propagation=rslave", Mount.bind("/a", "/b", options=["rslave"])),
        ('type=bind,"src=/a,b",dst=/c', Mount.bind("/a,b", "/c", options=["rprivate"])),
        ("src=data,dst=/b", Mount.volume("data", "/b")),
        ("type=volume,destination=/b,readonly=1", Mount.volume("", "/b", read_only=True)),
        ("type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=700", Mount.tmpfs("/b", size=1 << 20, mode=0o700)),
        ("type=image,source=busybox,dst=/b", Mount.image("busybox", "/b")),
    ],
)
def test_mounts(text: str, mount: Mount) -> None:
    assert parse_mount(text) == mount


def test_tmpfs() -> None:
    assert parse_tmpfs("/run").options == (*TMPFS, "mode=1777")
    assert parse_tmpfs("/run:size=64m,mode=0755,exec,uid=5").options == (
        "mode=0755",
        "exec",
        "uid=5",
        "nosuid",
        "nodev",
        "size=67108864",
    )
    assert parse_tmpfs("/run:ro").read_only


@pytest.mark.parametrize(
    "text", ["", "a:b:c:d", ":/a", "/a:", "/a:b", "/a:/", "bad/name:/a", "/a:/b:nope", "a\nb:/c", "-x:/a", "/a:/b/../c"]
)
def test_wrong_volumes(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_volume(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=bind",
        "type=bind,dst=/a",
        "type=disk,dst=/a",
        "type=bind,src=/a,dst=/b,dst=/c",
        "type=bind,src=/a,dst=/b,readonly=maybe",
        "type=bind,src=/a,dst=/b,bind-propagation=x",
        "type=tmpfs,dst=/a,src=/b",
        "type=tmpfs,dst=/a,tmpfs-mode=9",
        "type=tmpfs,dst=/a,tmpfs-size=many",
        "type=image,dst=/a",
        "type=volume,src=a,dst=/a,volume-opt=x",
        "nonsense",
    ],
)
def test_wrong_mounts(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_mount(text)


def test_the_home_of_nobody() -> None:
    with pytest.raises(InvalidInputError, match="the home of nobody"):
        parse_volume("~nobody-of-that-name/x:/y")


@pytest.mark.parametrize("text", ["", "run", "/run:size=x", "/run:nope", "/run:mode=8", "/:size=1m"])
def test_wrong_tmpfs(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_tmpfs(text)


@given(st.text(max_size=30))
def test_any_text_is_a_mount_or_an_error_of_ours(text: str) -> None:
    made = []
    for parse in (parse_volume, parse_mount, parse_tmpfs):
        try:
            made.append(parse(text).destination)
        except InvalidInputError as error:
            made.append(str(error))
    assert len(made) == 3


def test_what_comes_from_outside_is_bound_from_its_staging_place() -> None:
    bind = Mount.bind("/src", "/dst", read_only=True)
    assert bind.lowered() == SpecMount("/dst", "bind", bind.staging, ("rbind", "rprivate", "ro"))
    assert Mount.bind("/src", "/other", read_only=True).staging == bind.staging
    assert Mount.bind("/src", "/dst").staging != Mount.bind("/src2", "/dst").staging
    shared = Mount.volume("v", "/dst", options=["rshared"]).lowered()
    assert shared.options == ("rbind", "tmpcopyup", "rshared"), "an empty one starts with what the image has"
    assert "tmpcopyup" not in Mount.volume("v", "/dst", options=["nocopy"]).lowered().options
    assert "tmpcopyup" not in Mount.volume("v", "/dst", read_only=True).lowered().options
    assert Mount.volume("", "/a").staging != Mount.volume("", "/b").staging, "each anonymous one is its own"
    file = FileMount(Path("/etc/app.conf"), GuestPath("/app.conf")).as_mount()
    assert file.lowered().source == f"{file.staging}/file"
    assert len(file.staging.rpartition("/")[2]) <= 36


def test_what_the_guest_has_is_mounted_as_it_is() -> None:
    assert Mount.tmpfs("/a", size=Size.mib(1)).lowered() == SpecMount(
        "/a", "tmpfs", "tmpfs", (*TMPFS, "size=1048576", "mode=1777")
    )
    proc = Mount.guest("proc", "proc", "/p", options=["nosuid", "ro"])
    assert proc.lowered() == SpecMount("/p", "proc", "proc", ("nosuid", "ro"))
    block = Mount.block("xfs", "/disk.img", "/d")
    assert (block.kind, block.type, block.lowered().type) == ("block", "xfs", "bind")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mount.bind("/a\0", "/b"),
        lambda: Mount.guest("tmpfs", "tmpfs", "/b", options=["a,b"]),
        lambda: Mount.guest("tmpfs", "tmpfs", "/b", options=[""]),
        lambda: Mount.image("", "/b"),
        lambda: Mount.tmpfs("/"),
        lambda: container_options(mounts=[Mount.virtiofs("tag", "/b")]),
    ],
)
def test_wrong_values(make: object) -> None:
    with pytest.raises(InvalidInputError):
        make()  # type: ignore[operator]
