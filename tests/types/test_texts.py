"""Hostnames, guest paths, tags and users."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import InvalidInputError
from firkin.types import GuestPath, Hostname, User, VirtiofsTag

LABEL = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", fullmatch=True)
PART = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda part: part not in (".", "..")
)


@given(st.lists(LABEL, min_size=1, max_size=3).map(".".join))
def test_hostnames_are_labels(name: str) -> None:
    if name.replace(".", "").isdigit():
        with pytest.raises(InvalidInputError, match="all digits"):
            Hostname(name)
    else:
        assert Hostname(name) == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is empty"),
        ("a." * 127, "too long"),
        ("-a", "the label '-a'"),
        ("a-", "the label 'a-'"),
        ("a..b", "an empty label"),
        ("a_b", "the label 'a_b'"),
        ("a" * 64, "the label"),
        ("ä", "the label"),
        ("1.2.3", "all digits"),
        ("a\n", "the label"),
    ],
)
def test_wrong_hostnames(name: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        Hostname(name)
    assert caught.value.value == name


@given(st.lists(PART, max_size=6))
def test_a_guest_path_is_its_parts(parts: list[str]) -> None:
    text = "/" + "/".join(parts)
    path = GuestPath(text)
    assert path == text
    assert path.depth == len(parts)
    assert GuestPath(path / "x") == f"{text.rstrip('/')}/x"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "not absolute"),
        ("a/b", "not absolute"),
        ("/a\0", "NUL"),
        ("/a//b", "an empty part"),
        ("//", "an empty part"),
        ("/a/../b", r"a \.\. part"),
        ("/..", r"a \.\. part"),
        ("/" + "a" * 4095, "too long"),
    ],
)
def test_wrong_guest_paths(path: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        GuestPath(path)
    assert caught.value.value == path


def test_guest_paths_are_written_one_way() -> None:
    assert GuestPath("/a/") == GuestPath("/a/.") == GuestPath("/./a") == "/a"
    assert GuestPath("/") == "/"


def test_nothing_is_mounted_at_the_root() -> None:
    assert GuestPath.destination("/a") == "/a"
    for root in ("/", "/."):
        with pytest.raises(InvalidInputError, match="may not be /"):
            GuestPath.destination(root)


@pytest.mark.parametrize(
    ("tag", "says"), [("", "empty"), ("a" * 37, "too long"), ("a\t", "printable"), ("é", "printable")]
)
def test_wrong_tags(tag: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        VirtiofsTag(tag)
    assert VirtiofsTag("a" * 36) == "a" * 36


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("root", User("root")),
        ("1000", User("1000")),
        ("www-data:adm", User("www-data", "adm")),
        ("1:2", User("1", "2")),
        ("app:4294967294", User("app", "4294967294")),
        (":5", User("", "5")),
        ("", User()),
    ],
)
def test_users(text: str, user: User) -> None:
    assert User.parse(text) == user
    assert str(user) == text


@pytest.mark.parametrize("text", ["a:", "a b", "a:b:c", "4294967295", "a/b", "-a", "a\n", "a:99999999999", "ä"])
def test_wrong_users(text: str) -> None:
    with pytest.raises(InvalidInputError):
        User.parse(text)


def test_further_groups_are_checked() -> None:
    assert User("a", groups=("b", "7")).groups == ("b", "7")
    for group in ("", "x y"):
        with pytest.raises(InvalidInputError):
            User("a", groups=(group,))
