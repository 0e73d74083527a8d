"""The public surface as a whole: what is exported is there, typed, and says what it does, takes and raises."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import firkin
import firkin.errors
from firkin.errors import FirkinError

SOURCE = Path(firkin.__file__).parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MODULES = [
    ".".join(("firkin", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(SOURCE.rglob("*.py"))
    if not any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(SOURCE).parts)
]


def exported() -> Iterator[tuple[str, str, Any]]:
    """Every name of every public module's `__all__`: module, name, thing."""
    for name in MODULES:
        module = importlib.import_module(name)
        for each in getattr(module, "__all__", ()):
            yield name, each, getattr(module, each)


def test_the_package_exports_what_it_says() -> None:
    assert set(firkin.__all__) <= set(dir(firkin))
    assert [name for name in firkin.__all__ if not hasattr(firkin, name)] == []
    # What a type checker sees is what is there.
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    seen = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(firkin.__all__) - {"__version__"} <= seen
    assert (SOURCE / "py.typed").exists()


def test_errors_and_types_are_there_without_an_import_of_their_own() -> None:
    program = "import firkin; print(firkin.errors.ExecError.__name__, firkin.types.Size.mib(1))"
    printed = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True).stdout
    assert printed == "ExecError 1 MiB\n"


def test_importing_the_package_imports_nothing_of_it() -> None:
    program = "import sys, firkin; print(*sorted(name for name in sys.modules if name.startswith('firkin.')))"
    printed = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True).stdout
    assert printed.strip() == "firkin.lazy"


def test_every_error_is_of_the_tree_and_exported() -> None:
    found = [kind for kind in vars(firkin.errors).values() if inspect.isclass(kind) and issubclass(kind, FirkinError)]
    assert {kind.__name__ for kind in found} == set(firkin.errors.__all__)
    assert all(kind.__doc__ for kind in found)


def test_no_module_makes_an_error_of_its_own() -> None:
    """Who catches the classes of `firkin.errors` catches all. `Detached` is no failure: who attaches catches it."""
    own = [
        f"{module}.{name}"
        for module, name, thing in exported()
        if inspect.isclass(thing) and issubclass(thing, FirkinError) and thing.__module__ != "firkin.errors"
    ]
    assert own == ["firkin.core.detach_keys.Detached"]


def _documented(thing: Any) -> bool:
    ours = (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("firkin.")
    return bool(inspect.getdoc(thing)) if ours else True


def test_every_exported_class_and_function_has_a_docstring() -> None:
    assert [f"{module}.{name}" for module, name, thing in exported() if not _documented(thing)] == []


def test_every_public_method_has_a_docstring() -> None:
    bare = [
        f"{module}.{name}.{method}"
        for module, name, thing in exported()
        if inspect.isclass(thing) and thing.__module__.startswith("firkin.") and "_generated" not in thing.__module__
        for method, function in vars(thing).items()
        if not method.startswith("_")
        and (inspect.isfunction(function) or isinstance(function, property | classmethod | staticmethod))
        and not inspect.getdoc(getattr(thing, method))
    ]
    assert bare == []


def _raised(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[type[FirkinError]]:
    """The classes of Firkin's errors that the body of `function` itself raises."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (*FUNCTIONS, ast.Lambda)):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            kind = getattr(firkin.errors, node.exc.func.id, None)
            if kind is not None:
                yield kind
        waiting += ast.iter_child_nodes(node)


def _silent(node: ast.Module | ast.ClassDef, above: str) -> Iterator[str]:
    """Public functions below `node` that raise an error which their docstring (or class) does not name, nor a base."""
    for each in node.body:
        if isinstance(each, ast.ClassDef) and not each.name.startswith("_"):
            yield from _silent(each, f"{above}.{each.name}")
        elif isinstance(each, FUNCTIONS) and (not each.name.startswith("_") or each.name.startswith("__")):
            text = ast.get_docstring(each) or ""
            if each.name.startswith("__"):
                text += ast.get_docstring(node) or ""
            for kind in _raised(each):
                if not any(base.__name__ in text for base in kind.__mro__ if issubclass(base, FirkinError)):
                    yield f"{above}.{each.name}: {kind.__name__}"


@pytest.mark.parametrize("package", ["core", "types", "oci", "vmm", "vminitd", "ext4"])
def test_every_public_function_says_what_it_raises(package: str) -> None:
    silent = [
        line
        for path in sorted((SOURCE / package).rglob("*.py"))
        if not path.name.startswith("_") and "_generated" not in path.parts
        for line in _silent(ast.parse(path.read_text()), ".".join(path.relative_to(SOURCE).with_suffix("").parts))
    ]
    assert silent == []
