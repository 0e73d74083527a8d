"""A QEMU without the libraries that it has no use for: the copy, what it is tried for, and who runs it."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from firkin.types.state import StateDirs
from firkin.vmm import VirtualMachine, VmConfig
from firkin.vmm.argv import command_line
from firkin.vmm.assets import PRELOAD_LIBRARY, BootAssets, guest_folder, resolve_assets
from firkin.vmm.base import Shape
from firkin.vmm.host import HostCapabilities, Lean, probe
from firkin.vmm.lean import UNUSED, find_lean, without
from tests.vmm.test_argv import BOOT, TCG, value, values

BEFORE_PUBLISH = "lean.before-publish"
LEAN = Lean("/cache/qemu", "/usr/lib/qemu", ("/usr/share/qemu", "/usr/share/seabios"))
MAKE = """
import sys
from pathlib import Path
from firkin.types.state import StateDirs
from firkin.vmm.assets import resolve_assets
from firkin.vmm.host import probe
from firkin.vmm.lean import find_lean
assets = resolve_assets(StateDirs.default())
print(find_lean(probe(StateDirs.default(), assets), assets, Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def assets(home: Path) -> BootAssets:
    return resolve_assets(StateDirs.under(home))


@pytest.fixture(scope="module")
def host(home: Path, assets: BootAssets) -> HostCapabilities:
    return probe(StateDirs.under(home), assets)


def libraries(program: Path) -> set[str]:
    """What it loads, by the first part of the name."""
    told = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return {line.split()[0].rpartition("/")[2].partition(".so")[0] for line in told.splitlines()}


def compiled(tmp_path: Path) -> Path:
    """A program that uses two libraries, one with symbol versions and one without, and their data."""
    for name, script in (("versioned", "-Wl,--version-script=map"), ("plain", "")):
        (tmp_path / "map").write_text("V_1 { global: *; };\n")
        (tmp_path / f"{name}.c").write_text(f"int {name}_data = 3; int {name}(void) {{ return {name}_data; }}\n")
        flags = script.split()
        command = ["cc", "-shared", "-fPIC", *flags, "-o", f"lib{name}.so.1", f"-Wl,-soname,lib{name}.so.1"]
        subprocess.run([*command, f"{name}.c"], cwd=tmp_path, check=True)
    (tmp_path / "main.c").write_text(
        "#include <stdio.h>\nint versioned(void); int plain(void); extern int plain_data;\n"
        'int main(int count, char **words) { puts("began"); fflush(stdout);\n'
        "  return count == 1 ? 0 : *words[1] == 'v' ? versioned() : *words[1] == 'p' ? plain() : plain_data; }\n"
    )
    link = ["-pie", "-fPIE", "libversioned.so.1", "libplain.so.1", "-Wl,-z,now", "-Wl,-rpath,$ORIGIN"]
    subprocess.run(["cc", "-o", "main", "main.c", *link], cwd=tmp_path, check=True)
    return tmp_path / "main"


def trimmed(program: Path, *names: str) -> Path:
    copy = program.with_name("copy")
    copy.unlink(missing_ok=True)
    copy.write_bytes(without(program.read_bytes(), names))
    copy.chmod(0o755)
    return copy


def status(program: Path, *words: str) -> int:
    ended = subprocess.run([program, *words], capture_output=True, text=True)
    assert ended.stdout == "began\n", ended
    return ended.returncode


def test_a_library_less_is_loaded_and_a_call_to_it_ends_the_process(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    assert [status(program, word) for word in ("v", "p", "d")] == [3, 3, 3]
    assert {"libversioned", "libplain", "libc"} <= libraries(program)
    copy = trimmed(program, "libversioned")
    assert libraries(program) - libraries(copy) == {"libversioned"}
    assert [status(copy, *words) for words in ((), ("v",), ("p",), ("d",))] == [0, -signal.SIGSEGV, 3, 3]
    copy = trimmed(program, "libplain", "libversioned", "libnone")
    assert libraries(program) - libraries(copy) == {"libversioned", "libplain"}
    assert [status(copy, *words) for words in ((), ("v",), ("p",))] == [0, -signal.SIGSEGV, -signal.SIGSEGV]
    # Its data, which a program has a copy of, is zero.
    assert status(copy, "d") == 0
    assert copy.stat().st_size == program.stat().st_size


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no little-endian ELF file"),
        (b"#!/bin/sh\n", "no little-endian ELF file"),
        (b"\x7fELF\x01\x01\x01" + bytes(64), "no little-endian ELF file"),
        (b"\x7fELF\x02\x01\x01" + bytes(20), "no ELF executable as a linker makes it"),
        (b"\x7fELF\x02\x01\x01" + bytes(64), "no ELF executable as a linker makes it"),
    ],
    ids=["empty", "script", "of 32 bits", "torn", "without sections"],
)
def test_what_is_no_executable_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        without(content, UNUSED)


def test_static_programs_and_such_without_these_libraries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="as a linker makes it"):
        without((guest_folder() / "vminitd").read_bytes(), UNUSED)
    with pytest.raises(ValueError, match="linked to none of them"):
        without(compiled(tmp_path).read_bytes(), UNUSED)


def test_a_damaged_executable_is_refused_or_copied_and_nothing_else(tmp_path: Path) -> None:
    program = compiled(tmp_path).read_bytes()
    seeded = random.Random(7)
    heads = [*range(24, 64), *range(len(program) - 31 * 64, len(program))]
    outcomes = set()
    for _ in range(2000):
        damaged = bytearray(program[: seeded.randrange(len(program))] if seeded.random() < 0.2 else program)
        for at in seeded.sample(heads, 3):
            if at < len(damaged):
                damaged[at] = seeded.randrange(256)
        try:
            outcomes.add(len(without(bytes(damaged), ["libplain"])) == len(damaged))
        except ValueError:
            outcomes.add(None)
    assert outcomes == {True, None}


@pytest.mark.vm
async def test_a_vm_runs_it_and_loads_none_of_them(host: HostCapabilities) -> None:
    assert host.lean is not None
    async with await VirtualMachine.start(VmConfig(cpus=1, memory=256 << 20)) as vm:
        process = Path(f"/proc/{vm.pid}")
        maps = (process / "maps").read_text()
        assert (process / "comm").read_text() == f"qemu-system-{host.arch}"[:15] + "\n"
        assert (process / "cmdline").read_bytes().startswith(f"{host.qemu}\0".encode())
        assert (process / "exe").samefile(host.lean.program)
    assert PRELOAD_LIBRARY in maps
    assert [name for name in UNUSED if f"/{name}.so" in maps or f"/{name}-" in maps] == []
    assert len(libraries(Path(host.qemu))) > 2 * maps.count(" r-xp ")


def test_the_copy_is_made_once_and_tried(
    host: HostCapabilities, assets: BootAssets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_lean(host, assets, tmp_path)
    assert found is not None
    program = Path(found.program)
    assert (program.parent, program.stat().st_mode & 0o777) == (tmp_path, 0o555)
    assert not libraries(program) & UNUSED
    # Nothing can boot now; what is there already is taken all the same.
    nowhere = replace(assets, vmlinux=tmp_path / "none")
    assert find_lean(host, nowhere, tmp_path) == found
    caplog.set_level(logging.INFO)
    program.unlink()
    assert find_lean(host, nowhere, tmp_path) is None
    assert "runs as it is, with all of its libraries" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {".trial"}


def test_one_that_lacks_what_it_needs_is_found_out_and_not_kept(
    host: HostCapabilities, assets: BootAssets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert find_lean(host, assets, tmp_path, unused=[*UNUSED, "libpixman-1", "liburing"]) is None
    assert f"{host.qemu} runs as it is" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {".trial"}


def test_a_few_copies_are_kept_and_nothing_torn(host: HostCapabilities, assets: BootAssets, tmp_path: Path) -> None:
    names = [f"qemu-system-{host.arch}-{which}" for which in ("oldest", "older", "newer", "new-torn")]
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    found = find_lean(host, assets, tmp_path)
    assert found is not None
    assert {path.name for path in tmp_path.iterdir()} == {".trial", names[2], names[1], Path(found.program).name}


def test_killed_before_it_is_published(host: HostCapabilities, assets: BootAssets, tmp_path: Path) -> None:
    environ = os.environ | {"FIRKIN_FAULT": f"{BEFORE_PUBLISH}=kill"}
    command = [sys.executable, "-c", MAKE, str(tmp_path)]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (left,) = tmp_path.glob("qemu-*")
    assert f"qemu-system-{host.arch}-new-" in left.name
    found = find_lean(host, assets, tmp_path)
    assert found is not None
    assert list(tmp_path.glob("qemu-*")) == [Path(found.program)]


def test_where_the_copy_is_gone_another_is_made(fresh_home: Path) -> None:
    dirs = StateDirs.default()
    assets = resolve_assets(dirs)
    first = probe(dirs, assets)
    assert first.lean is not None
    Path(first.lean.program).unlink()
    assert probe(dirs, assets) == first
    assert Path(first.lean.program).exists()


def test_its_command_line_names_its_firmware_and_the_process() -> None:
    argv = command_line(VmConfig(), replace(TCG, lean=LEAN), BOOT, name="c1")
    assert argv[0] == TCG.qemu
    assert value(argv, "-name") == "c1,process=qemu-system-x86_64"
    assert values(argv, "-L") == ["/usr/share/qemu", "/usr/share/seabios"]
    plain = command_line(VmConfig(), TCG, BOOT, name="c1")
    assert value(plain, "-name") == "c1"
    assert "-L" not in plain
    assert argv[7:] == plain[3:]


def test_a_saved_vm_does_not_depend_on_it(assets: BootAssets) -> None:
    assert Shape.of(VmConfig(), TCG, assets) == Shape.of(VmConfig(), replace(TCG, lean=LEAN), assets)
