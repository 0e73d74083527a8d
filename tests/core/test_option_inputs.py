"""Options as people write them: whatever is given is an option, or named as none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from firkin.core.exec_config import ExecConfig
from firkin.core.option_inputs import ExecInputs, OptionInputs, container_options
from firkin.errors import InvalidInputError

ODD = [
    *("x", "", "\0", b"x", 7, -1, 1.5, float("nan"), True, object()),
    *(["x"], ["\0"], [7], [None], [b"x"], [[]], ()),
    *({"a": 1}, {"a": "b"}, {"a": None}, {1: 2}, {"\0": "a"}),
]


def refusals(make: Callable[..., object], name: str) -> list[str]:
    """What `make` says of each value that it does not take."""
    said = []
    for value in ODD:
        try:
            make(["true"], **{name: value})
        except InvalidInputError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("name", OptionInputs.__annotations__)
def test_a_value_is_taken_or_refused_in_a_line(name: str) -> None:
    said = refusals(container_options, name)
    assert said
    assert all(len(text.splitlines()) == 1 for text in said)


@pytest.mark.parametrize("name", ExecInputs.__annotations__)
def test_so_is_an_option_of_a_further_process(name: str) -> None:
    said = refusals(ExecConfig.of, name)
    assert said
    assert all(len(text.splitlines()) == 1 for text in said)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"virtiofs_shares": ["/there:/here"]}, "virtiofs_shares can't be"),
        ({"mounts": [7]}, "mounts can't be"),
        ({"mac_address": 7}, "mac_address can't be 7"),
        ({"allow_net": 7}, "allow_net can't be 7"),
        ({"read_only": "yes"}, "read_only can't be 'yes'"),
        ({"env": {"A": 1}}, "env can't be"),
        ({"dns": "1.1.1.1"}, "dns can't be '1.1.1.1'"),
        ({"colour": "red"}, "there is no option 'colour'"),
    ],
)
def test_the_error_names_it(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        container_options(["true"], **given)


def test_an_option_of_a_container_is_none_of_a_process() -> None:
    with pytest.raises(InvalidInputError, match="there is no option 'memory' of a further process"):
        ExecConfig.of("true", memory="1g")  # type: ignore[call-arg]
