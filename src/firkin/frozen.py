"""`dataclass` for frozen values, at a fifth of the standard library's price for each class.

`dataclasses.dataclass(frozen=True)` compiles six methods a class, about a millisecond; the values that stand between a
command line and a VM are some fifty classes. Here only `__init__` is compiled, the other methods are shared. For a type
checker it is `dataclasses.dataclass` itself, and `fields`, `replace` and `asdict` work on what it makes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    _set = object.__setattr__
    _FACTORY = object()

    def dataclass(*, frozen, slots=False, kw_only=False, init=True, repr=True, eq=True):
        """As `dataclasses.dataclass`; what it makes is always frozen."""
        if not frozen:
            raise TypeError("firkin.frozen.dataclass makes frozen classes only")

        def process(cls):
            own = vars(cls)
            methods = {"__setattr__": _setattr, "__delattr__": _delattr}
            methods |= {"__repr__": _repr} if repr and "__repr__" not in own else {}
            methods |= {"__eq__": _eq, "__hash__": _hash} if eq and "__eq__" not in own else {}
            methods |= {"__getstate__": _getstate, "__setstate__": _setstate} if slots else {}
            cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
            if init:
                methods["__init__"] = _make_init(cls)
            for name, method in methods.items():
                setattr(cls, name, method)
            return cls

        return process

    def _make_init(cls):
        scope = {"_set": _set, "_FACTORY": _FACTORY}
        positional, named, body = [], [], []
        for field in dataclasses.fields(cls):
            name = value = field.name
            argument = name
            if field.default is not dataclasses.MISSING:
                scope[f"_default_{name}"] = field.default
                argument = f"{name}=_default_{name}"
            elif field.default_factory is not dataclasses.MISSING:
                scope[f"_new_{name}"] = field.default_factory
                argument, value = f"{name}=_FACTORY", f"_new_{name}() if {name} is _FACTORY else {name}"
            (named if field.kw_only else positional).append(argument)
            body.append(f"_set(self,{name!r},{value})")
        if hasattr(cls, "__post_init__"):
            body.append("self.__post_init__()")
        arguments = ",".join(["self", *positional, *(["*", *named] if named else [])])
        exec(f"def __init__({arguments}):\n " + "\n ".join(body or ["pass"]), scope)
        method = scope["__init__"]
        method.__qualname__ = f"{cls.__qualname__}.__init__"
        method.__annotations__ = {field.name: field.type for field in dataclasses.fields(cls)} | {"return": None}
        return method

    def _values(value):
        return tuple(getattr(value, field.name) for field in dataclasses.fields(value) if field.compare)

    def _eq(self, other):
        return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented

    def _hash(self):
        return hash(_values(self))

    def _repr(self):
        shown = (field.name for field in dataclasses.fields(self) if field.repr)
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def _setattr(self, name, value):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def _delattr(self, name):
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def _getstate(self):
        return [getattr(self, field.name) for field in dataclasses.fields(self)]

    def _setstate(self, state):
        for field, value in zip(dataclasses.fields(self), state, strict=True):
            _set(self, field.name, value)
