"""What the documentation's pages are run with: a home that has the images they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.oci import ImageStore
from firkin.types import StateDirs
from tests.docs.blocks import left_out


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which blocks of the documentation no test runs."""
    for each in left_out():
        terminalreporter.write_line(f"docs, not run: {each}")


@pytest.fixture(scope="session")
def docs_data(tmp_path_factory: pytest.TempPathFactory, debian_layout: Path, debian_python_layout: Path) -> Path:
    """A `data` folder whose store has the images that the pages name, so that they run without a registry."""
    home = tmp_path_factory.mktemp("docs")
    store = ImageStore(StateDirs.under(home))
    store.load(debian_layout, name="debian")
    store.load(debian_python_layout, name="python")
    store.tag("python", "python:3-slim")
    return home / "data"


@pytest.fixture
def docs_home(tmp_path: Path, home: Path, docs_data: Path) -> Path:
    """A `FIRKIN_HOME` for one page: the pages' images, the caches that all tests share, and a `run` of its own."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    (folder / "data").symlink_to(docs_data)
    (folder / "cache").symlink_to((home / "cache").resolve())
    return folder
