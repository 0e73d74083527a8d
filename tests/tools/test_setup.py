"""Preparing the machine a second time is silent."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this checkout with a changed environment, and what it said."""
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.parametrize("command", [["tools/setup.sh"], ["tools/setup.sh", "tests"], ["tools/testimages.sh"]])
def test_where_all_is_there_nothing_is_said(command: list[str]) -> None:
    done = run(*command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_another_qemu_is_refused_unless_asked_for(tmp_path: Path) -> None:
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text("#!/bin/sh\necho 'QEMU emulator version 10.0.3 (Debian)'\n")
    qemu.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    refused = run("tools/setup.sh", PATH=path)
    assert refused.returncode == 1
    assert "QEMU 10.0 found, 7.2 wanted" in refused.stderr
    assert run("tools/setup.sh", PATH=path, FIRKIN_ANY_QEMU="1").returncode == 0
