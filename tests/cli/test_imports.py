"""What small commands import: start-up time is imports, and a list of modules is exact where a clock is not."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from firkin.oci import Image

_PROBE = """
import atexit, sys
atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))
from firkin.cli import main
main()
"""
# Each costs a third of a small command or more.
HEAVY = frozenset(("asyncio", "google.protobuf", "httpx", "rich", "qemu.qmp", "ssl"))


def imported(*args: str) -> set[str]:
    """The modules that `firkin ARGS` has imported by its end."""
    done = subprocess.run([sys.executable, "-c", _PROBE, *args], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("args", [("version",), ("ps",), ("ps", "--format", "json"), ("--help",), ("run", "--help")])
def test_small_commands_import_little(home: object, args: tuple[str, ...]) -> None:
    assert imported(*args) & HEAVY == set()


def test_version_imports_no_layer_below_the_command_line(home: object) -> None:
    layers = {f"firkin.{layer}" for layer in ("core", "vmm", "vminitd", "oci", "ext4", "types")}
    assert imported("version") & layers == set()


_SPAWN = """
import logging, sys
class Spawned(logging.Handler):
    def emit(self, record):
        print(*sorted(sys.modules), file=sys.stderr)
logging.getLogger("firkin.vmm.spawn").addHandler(Spawned())
logging.getLogger("firkin.vmm.spawn").setLevel(logging.DEBUG)
from firkin.cli import main
main()
"""


@pytest.mark.vm
def test_qemu_is_spawned_before_what_it_needs_not_is_imported(home: object, busybox_image: Image) -> None:
    command = [sys.executable, "-c", _SPAWN, "run", "busybox", "true"]
    # The first may have to make a base VM.
    subprocess.run(command, capture_output=True, check=True)
    modules = set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())
    assert "firkin.vmm.head_start" in modules
    assert modules & HEAVY == set()
    assert {
        "firkin.vminitd.link",
        "firkin.core.lowering",
        "firkin.core.owner",
        "firkin.network.stack",
    } & modules == set()


@pytest.mark.parametrize(
    "package", ["firkin", "firkin.network", "firkin.oci", "firkin.types", "firkin.vminitd", "firkin.vmm"]
)
def test_lazy_packages_have_what_they_promise(package: str) -> None:
    module = importlib.import_module(package)
    assert {name: getattr(module, name) for name in module.__all__}.keys() == set(module.__all__)
    assert not hasattr(module, "nothing")
