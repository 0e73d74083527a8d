"""Packages whose names are imported at first use: who needs one value type does not pay for the engine beside it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["attributes"]


def attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` (PEP 562) of `package`, whose public names live in `modules`: name -> module below it.

    A name that is its own module stands for that module.
    """

    def __getattr__(name: str) -> Any:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = importlib.import_module(f"{package}.{module}")
        value = found if module == name else getattr(found, name)
        # Found once: the next look-up does not come here.
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
