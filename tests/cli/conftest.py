"""Running the command line as a user does: as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Firkin = Callable[..., subprocess.CompletedProcess[str]]
FIRKIN = (sys.executable, "-c", "from firkin.cli import main; main()")


@pytest.fixture
def firkin(home: object) -> Firkin:
    """Call `firkin` with arguments to its end: text in and out, at most 120 s."""

    def call(*args: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **(env or {})}
        return subprocess.run(
            [*FIRKIN, *args], env=environ, text=True, capture_output=True, timeout=120, check=False, **options
        )

    return call


@pytest.fixture
def start_firkin(home: object) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `firkin` with arguments and leave it running; at the end of the test it is told to end, as a user would."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*FIRKIN, *args], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
