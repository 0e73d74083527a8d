"""References, digests and platforms: the grammar, its defaults, and what is refused."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firkin.errors import InvalidInputError
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.reference import Reference

D = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest"),
        ("team/tool", "docker.io/team/tool:latest"),
        ("index.docker.io/team/tool", "docker.io/team/tool:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("quay.io/a/b/c:t", "quay.io/a/b/c:t"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("HOST/a", "HOST/a:latest"),
        (f"a@{D}", f"docker.io/library/a@{D}"),
        (f"quay.io/a:t@{D}", f"quay.io/a:t@{D}"),
        ("a__b--c/d.e", "docker.io/a__b--c/d.e:latest"),
    ],
)
def test_parse(text: str, canonical: str) -> None:
    reference = Reference.parse(text)
    assert reference.canonical() == str(reference) == canonical
    assert Reference.parse(canonical) == reference
    assert Reference.parse(reference.familiar()) == reference


BAD = [
    "",
    "/a",
    "a/",
    "a//b",
    "Busybox",
    "a:",
    "a:-t",
    "a:" + "t" * 129,
    "a@",
    "a@sha256:12",
    "a@md5:" + "a" * 32,
    "a b",
    "a\n",
]
BAD += [
    ".a",
    "a..b",
    "a___b",
    "-a",
    "a/../b",
    "../a",
    "host:port/a",
    "host:123456/a",
    "a.b/" + "c" * 260,
    "é",
    "a:t:u",
    "x" * 2000,
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Reference.parse(text)
    assert "\n" not in str(caught.value)
    assert caught.value.value is not None


def test_the_error_says_that_names_are_in_lower_case() -> None:
    with pytest.raises(InvalidInputError, match="in lower case"):
        Reference.parse("quay.io/Tool")


@settings(deadline=None)
@given(st.text(alphabet="aB0.-_/:@[] \n\x00é", max_size=30) | st.text(max_size=60))
def test_parsing_is_total_and_stable(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidInputError:
        return
    assert Reference.parse(reference.canonical()) == reference
    assert Reference.parse(reference.familiar()) == reference


def test_pinned_drops_the_tag() -> None:
    assert str(Reference.parse("quay.io/a:t").pinned(Digest(D))) == f"quay.io/a@{D}"


def test_digest() -> None:
    digest = Digest.of(b"x")
    assert digest == "sha256:" + hashlib.sha256(b"x").hexdigest()
    assert (digest.algorithm, len(digest.hex)) == ("sha256", 64)
    assert Digest.of(b"x", "sha512").hasher().name == "sha512"


@pytest.mark.parametrize("text", ["", "sha256", D.upper(), D + "a", D + "\n", "sha1:" + "a" * 40, "sha256:" + "g" * 64])
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a digest"):
        Digest(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("amd64/v3", "linux/amd64/v3"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("arm", "linux/arm/v7"),
        ("arm/6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("riscv64", "linux/riscv64"),
    ],
)
def test_platforms(text: str, shown: str) -> None:
    platform = Platform.parse(text)
    assert str(platform) == shown
    assert Platform.parse(shown) == platform


@pytest.mark.parametrize(
    "text", ["", "windows/amd64", "linux", "sparc", "amd64/v9", "linux/arm/v7/x", "linux/riscv64/v1"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Platform.parse(text)


def test_best_takes_the_highest_variant_that_runs() -> None:
    offered = [Platform("arm", "v6"), Platform("amd64"), Platform("arm", "v7"), Platform("amd64", "v2")]
    assert Platform("arm", "v7").best(offered) == 2
    assert Platform("arm", "v6").best(offered) == 0
    assert Platform("arm", "v5").best(offered) is None
    assert Platform("amd64").best(offered) == 1
    assert Platform("amd64", "v4").best(offered) == 3
    assert not Platform("arm64").runs(Platform("arm"))


def test_this_host_has_a_platform() -> None:
    assert Platform.current().runs(Platform.current())
