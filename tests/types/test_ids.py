"""Names of containers, processes and pods."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import InvalidInputError
from firkin.types import ContainerId, Hostname, PodId, ProcessId

VALID = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True).filter(lambda text: text not in (".", ".."))


@given(VALID)
def test_a_valid_id_is_its_text(text: str) -> None:
    assert ContainerId(text) == text
    assert type(ContainerId(ContainerId(text))) is ContainerId


@pytest.mark.parametrize("kind", [ContainerId, ProcessId, PodId])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "is empty"),
        ("a" * 65, "is too long: 65 characters"),
        ("bad/id", "has forbidden characters: '/'"),
        ("a b\nc", "has forbidden characters"),
        ("é", "has forbidden characters: 'é'"),
        (".", "names a folder"),
        ("..", "names a folder"),
    ],
)
def test_the_error_says_what_is_wrong_and_carries_the_value(kind: type[ContainerId], value: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(says)) as caught:
        kind(value)
    assert caught.value.value == value


def test_the_three_are_different_types() -> None:
    assert not isinstance(ContainerId("a"), ProcessId | PodId)
    with pytest.raises(InvalidInputError, match="not int"):
        ProcessId(7)  # type: ignore[arg-type]


@given(VALID)
def test_every_id_has_a_valid_default_hostname(text: str) -> None:
    assert Hostname(ContainerId(text).default_hostname()) == PodId(text).default_hostname()


@pytest.mark.parametrize(
    ("id", "hostname"),
    [
        ("web", "web"),
        ("my_app.1", "my-app-1"),
        ("---", "container"),
        ("007", "c007"),
        ("_", "container"),
        ("a" * 64, "a" * 63),
    ],
)
def test_default_hostnames(id: str, hostname: str) -> None:
    assert ContainerId(id).default_hostname() == hostname


def test_a_random_id_is_its_own_hostname() -> None:
    drawn = iter(["254938901256", "000000000000", "25493890125e", "a"])
    id = ContainerId.random(lambda size: next(drawn))
    assert (id, id.default_hostname(), type(id)) == ("25493890125e", "25493890125e", ContainerId)
    assert list(drawn) == ["a"]
    assert len(ContainerId.random()) == 12
