"""Every example in a docstring is run, in a real VM where it starts one."""

from __future__ import annotations

import doctest
import importlib
import io
import pkgutil
from collections.abc import Iterator

import pytest

import firkin
from firkin.oci import Image


def _examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = ["firkin", *(found.name for found in pkgutil.walk_packages(firkin.__path__, "firkin."))]
    loaded = (importlib.import_module(name) for name in modules if "_generated" not in name)
    return [test for module in loaded for test in finder.find(module, module.__name__) if test.examples]


EXAMPLES = _examples()


@pytest.fixture(scope="module")
def box(busybox_image: Image) -> Iterator[firkin.Container]:
    """What `box` is in the examples."""
    with firkin.Container.launch("busybox", ["sleep", "600"], name="box") as container:
        yield container


@pytest.mark.vm
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_example(example: doctest.DocTest, box: firkin.Container) -> None:
    example.globs = {"firkin": firkin, "box": box}
    said = io.StringIO()
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.write, clear_globs=False)
    assert result.failed == 0, said.getvalue()


def test_no_example_is_skipped() -> None:
    skipped = [test.name for test in EXAMPLES if any(doctest.SKIP in example.options for example in test.examples)]
    assert skipped == []
    assert {"firkin.core.blocking.run", "firkin.core.blocking.Container"} <= {test.name for test in EXAMPLES}
