"""One world and, in each module, one container for the tests that need both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from firkin.oci import Image
from tests.network.world import World
from tests.network.world import world as make_world


@pytest.fixture(scope="module")
def world(debian_python_image: Image) -> Iterator[World]:
    """The test's thread is inside until the module's end. Needs root."""
    with make_world() as made:
        yield made
