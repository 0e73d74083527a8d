"""Compiled filters are kept by content: a second start compiles nothing, a crash leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.core.libseccomp import compile_rules
from firkin.core.option_inputs import container_options
from firkin.core.seccomp import Seccomp
from firkin.core.seccomp_cache import container_program, program_for
from firkin.errors import FirkinError
from firkin.types import LinuxCapabilities

FOURTEEN = LinuxCapabilities.default_oci()
PUBLISH = "seccomp.publish"
PROFILE = Seccomp.allow_all_but(["mount"])

USE = """
import sys
from pathlib import Path
from firkin.core.seccomp import Seccomp
from firkin.core.seccomp_cache import program_for
from firkin.types import LinuxCapabilities
program = program_for("default", LinuxCapabilities.default_oci(), cache=Path(sys.argv[1]))
print(len(program.bpf), "firkin.core.libseccomp" in sys.modules)
"""


def use(cache: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environ}
    command = [sys.executable, "-c", USE, str(cache)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_the_second_process_does_not_even_load_the_compiler(tmp_path: Path) -> None:
    first, second = use(tmp_path), use(tmp_path)
    assert first.stdout.endswith("True\n"), first.stderr
    assert second.stdout == first.stdout.replace("True", "False")


def test_killed_before_the_file_has_its_name_nothing_is_there(tmp_path: Path) -> None:
    killed = use(tmp_path, FIRKIN_FAULT=f"{PUBLISH}=kill")
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
    assert use(tmp_path).returncode == 0
    assert [path.suffix for path in tmp_path.iterdir()] == [".bpf"]


def test_a_full_disk_costs_the_keeping_only(tmp_path: Path) -> None:
    full = use(tmp_path, FIRKIN_FAULT=f"{PUBLISH}=enospc")
    assert (full.returncode, list(tmp_path.iterdir())) == (0, [])


@pytest.mark.parametrize("damage", [b"", b"FKBPF", b"\0" * 500])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    program = program_for(PROFILE, FOURTEEN, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for content in (damage, whole[:-8], whole[:-1] + b"\xff"):
        file.write_bytes(content)
        assert program_for(PROFILE, FOURTEEN, cache=tmp_path) == program
        assert file.read_bytes() == whole


def test_everything_that_matters_is_in_the_key(tmp_path: Path) -> None:
    made = [
        program_for(PROFILE, FOURTEEN, cache=tmp_path),
        program_for(PROFILE, LinuxCapabilities.all(), cache=tmp_path),
        program_for(PROFILE, FOURTEEN, cache=tmp_path, kernel=(5, 10)),
        program_for(PROFILE, FOURTEEN, cache=tmp_path, architecture="arm64"),
        program_for(Seccomp.allow_all_but(["umount2"]), FOURTEEN, cache=tmp_path),
        program_for("default", FOURTEEN, cache=tmp_path),
    ]
    assert None not in made
    assert len(list(tmp_path.iterdir())) == len(made)
    program_for(PROFILE, LinuxCapabilities.single_set(FOURTEEN.bounding), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(made)


def test_a_folder_that_cannot_be_written_is_no_obstacle() -> None:
    assert program_for(PROFILE, FOURTEEN, cache=Path("/proc/nowhere")) is not None


def test_who_runs_without_a_filter(tmp_path: Path) -> None:
    assert container_program(container_options(seccomp="unconfined"), cache=tmp_path) is None
    assert container_program(container_options(privileged=True), cache=tmp_path) is None
    assert container_program(container_options(privileged=True, seccomp=PROFILE), cache=tmp_path) is not None
    assert container_program(container_options(), cache=tmp_path) is not None


def test_without_the_library_the_error_says_what_to_do() -> None:
    with pytest.raises(
        FirkinError, match=r"libseccomp-is-not-here.so is missing \(install libseccomp2, or .*unconfined"
    ):
        compile_rules(0, [], (), library="libseccomp-is-not-here.so")
