"""A specification read back from the JSON that `firkin.core.spec.to_json` wrote."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from firkin.core import spec
from firkin.core.spec import RuntimeSpec
from firkin.errors import InvalidInputError
from firkin.types import Capability

__all__ = ["read_spec"]

_T = TypeVar("_T")


def read_spec(document: object) -> RuntimeSpec:
    """The specification in a parsed JSON document. Raises `InvalidInputError` for anything else."""
    try:
        return _read(RuntimeSpec, document)
    except InvalidInputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError("the specification is not what Firkin writes", value=str(document)[:200]) from error


def _read(kind: type[_T], document: Any) -> _T:
    """A value of one of spec's classes (or of those it holds) from its object; what is left out has its default."""
    hints = get_type_hints(kind, vars(spec) | {"Capability": Capability})
    keys = dict(spec.keys(kind))
    unknown = set(document) - set(keys.values())
    if unknown:
        raise KeyError(sorted(unknown)[0])
    given = {name: _value(hints[name], document[key]) for name, key in keys.items() if key in document}
    return kind(**given)


def _value(hint: Any, item: Any) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
        origin = get_origin(hint)
    if origin is tuple:
        return tuple(_value(get_args(hint)[0], part) for part in _of(list, item))
    if origin is not None and issubclass(origin, Mapping):
        return {_of(str, key): _of(str, part) for key, part in _of(dict, item).items()}
    if hint is Capability:
        return Capability.parse(_of(str, item))
    return _of(hint, item) if hint in (str, int, bool) else _read(hint, item)


def _of(kind: type[_T], item: Any) -> _T:
    if type(item) is not kind:
        raise TypeError(f"{item!r} is not {kind.__name__}")
    return item
