"""`firkin.frozen.dataclass` beside the standard library's: the same values, methods and refusals."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from firkin.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Ours:
    """A value."""

    a: int
    b: str = "x"
    c: list[int] = dataclasses.field(default_factory=list)
    d: int = dataclasses.field(default=4, repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    """The same."""

    a: int
    b: str = "x"
    c: list[int] = dataclasses.field(default_factory=list)
    d: int = dataclasses.field(default=4, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Part:
    one: int = 1

    def __post_init__(self) -> None:
        if self.one < 0:
            raise ValueError(self.one)


@dataclass(frozen=True, kw_only=True)
class Whole(Part):
    two: tuple[int, ...] = ()


@pytest.mark.parametrize("args", [(1,), (1, "y"), (1, "y", [2]), (1, "y", [2], 7)])
def test_values_are_as_the_standard_librarys(args: tuple[Any, ...]) -> None:
    ours, theirs = Ours(*args), Theirs(*args)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert ours == Ours(*args)
    assert ours != theirs
    assert dataclasses.replace(ours, a=9) == Ours(9, *args[1:])
    assert pickle.loads(pickle.dumps(ours)) == copy.deepcopy(ours) == ours


def test_classes_are_as_the_standard_librarys() -> None:
    assert Ours.__match_args__ == Theirs.__match_args__
    assert Ours.__slots__ == Theirs.__slots__
    assert [str(each) for each in inspect.signature(Ours).parameters.values()][:2] == ["a: 'int'", "b: 'str' = 'x'"]
    assert Ours(1).c is not Ours(1).c


def test_fields_that_are_not_compared_do_not_count() -> None:
    assert Ours(1, d=5) == Ours(1, d=6)
    assert hash(Whole(two=(1,))) == hash(Whole(two=(1,)))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Ours(1))


def test_nothing_can_be_changed() -> None:
    value = Ours(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.a = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.a


def test_inheritance_keeps_checks_and_keywords() -> None:
    assert Whole(one=2, two=(3,)) == dataclasses.replace(Whole(one=2), two=(3,))
    assert repr(Whole()) == "Whole(one=1, two=())"
    with pytest.raises(ValueError, match="-1"):
        Whole(one=-1)
    with pytest.raises(TypeError):
        Whole(2)  # type: ignore[misc]


def test_it_makes_nothing_that_is_not_frozen() -> None:
    with pytest.raises(TypeError, match="frozen classes only"):
        dataclass(frozen=False)
