"""Folders that several processes work on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from firkin.types.folders import flush, locked


def test_one_at_a_time(tmp_path: Path) -> None:
    entered = threading.Event()

    def second() -> None:
        with locked(tmp_path):
            entered.set()

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()


def test_files_and_folders_are_flushed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    flush(tmp_path / "file")
    flush(tmp_path)
    with pytest.raises(FileNotFoundError):
        flush(tmp_path / "none")
