"""A store of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.oci import ImageStore
from firkin.types.state import StateDirs
from tests.oci.builders import Concatenated


@pytest.fixture
def dirs(tmp_path: Path) -> StateDirs:
    return StateDirs.under(tmp_path / "home")


@pytest.fixture
def writer() -> Concatenated:
    return Concatenated()


@pytest.fixture
def store(dirs: StateDirs, writer: Concatenated) -> ImageStore:
    return ImageStore(dirs, write_image=writer)
