"""Where a docstring of the sync face says "As `AsyncContainer.wait`.", the reference shows that call's docstring."""

from __future__ import annotations

import inspect
import re

from sphinx.application import Sphinx

import firkin

_AS = re.compile(r"^As `(?:firkin\.)?([\w.]+)`[.:]")


def _resolve(path: str) -> object:
    found: object = firkin
    for part in path.split("."):
        found = getattr(found, part)
    return found


def fill(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Put what is referred to in the place of the reference; what follows it stays."""
    if lines and (match := _AS.match(lines[0])):
        rest = [lines[0][match.end() :].strip(), *lines[1:]]
        lines[:] = [*(inspect.getdoc(_resolve(match[1])) or "").splitlines(), "", *rest, ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.connect("autodoc-process-docstring", fill)
    return {"parallel_read_safe": True}
