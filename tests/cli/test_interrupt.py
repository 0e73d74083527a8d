"""Ctrl-C before there is anything to undo: no traceback, whatever is imported just then."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Ctrl-C comes when the module named first is about to be imported.
_PROGRAM = """
import os, signal, sys
module = sys.argv.pop(1)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from firkin.__main__ import main
main()
"""


def interrupted(module: str, *words: str, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    """`firkin WORDS`, interrupted when it imports `module`."""
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, module, *words],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None,
    )


@pytest.mark.parametrize("module", ["click", "firkin.cli.main", "firkin.errors"])
def test_while_the_command_line_is_imported(module: str) -> None:
    done = interrupted(module, "version")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("module", ["firkin.cli.inspect", "asyncio"])
def test_while_a_command_is_imported(home: object, module: str) -> None:
    done = interrupted(module, "inspect", "box")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_who_ignores_it_goes_on_doing_so() -> None:
    done = interrupted("firkin.cli.main", "version", ignored=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "firkin")


def test_python_runs_the_package() -> None:
    command = [sys.executable, "-m", "firkin", "version", "--format", "{{.python}}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{sys.version.split()[0]}\n"
