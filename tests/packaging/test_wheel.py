"""What is in the wheel and in the source distribution."""

from __future__ import annotations

import platform
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from build_guest import check_static

import firkin
from firkin.vmm.assets import GUEST_FILES
from tests.packaging.conftest import ROOT, build

MACHINE = platform.machine()


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def test_the_wheel_holds_the_package_the_guest_and_the_messages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    own = {name.removeprefix("src/") for name in tracked("src/firkin")}
    guest = {f"firkin/_guest/{MACHINE}/{program}" for program in GUEST_FILES}
    generated = {name for name in names if name.startswith("firkin/vminitd/_generated/")}
    assert {"firkin/vminitd/_generated/agent_pb2.py", "firkin/vminitd/_generated/schema.py"} <= generated
    assert names == own | guest | generated
    assert {"firkin/py.typed", "firkin/core/seccomp_default.json"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_the_guests_programs_are_static_and_executable(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for program in GUEST_FILES:
            name = f"firkin/_guest/{MACHINE}/{program}"
            check_static(Path(archive.extract(name, tmp_path)), MACHINE)
            assert archive.getinfo(name).external_attr >> 16 & 0o111 == 0o111


def test_a_users_program_is_checked_strictly_against_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """As installed: mypy believes the annotations of a package that has `py.typed`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    (site,) = (tmp_path / "env").glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = ROOT / "tests" / "packaging" / "user_program.py"
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", "env/bin/python"]
    done = subprocess.run([*command, str(program)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "Success: no issues found in 1 source file\n", done.stdout + done.stderr


def test_the_metadata_says_what_the_source_does(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
        tags = [line.partition(": ")[2] for line in archive.read(f"{folder}/WHEEL").decode().splitlines()]
    assert (metadata["Name"], metadata["Version"]) == ("firkin", firkin.__version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "firkin = firkin.__main__:main" in scripts
    assert {f"py3-none-manylinux_2_17_{MACHINE}", f"py3-none-musllinux_1_1_{MACHINE}"} <= set(tags)
    assert f"/{wheel.name}".endswith(f"manylinux_2_17_{MACHINE}.musllinux_1_1_{MACHINE}.whl")


def test_the_source_distribution_builds_what_the_checkout_does(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= tracked("src", "guest", "proto", "tools", "docs") | {"pyproject.toml", "README.md", "LICENSE"}
    assert not [name for name in names if "_generated/" in name or "_guest/" in name or name.startswith("guest/target")]


@pytest.mark.soak
def test_a_wheel_is_built_of_the_source_distribution(wheel: Path, tmp_path: Path) -> None:
    """With cargo, whole: minutes."""
    with tarfile.open(build("sdist", tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out")]
    subprocess.run(command, cwd=source, check=True)
    (built,) = (tmp_path / "out").iterdir()
    with zipfile.ZipFile(built) as ours, zipfile.ZipFile(wheel) as theirs:
        assert ours.namelist() == theirs.namelist()
