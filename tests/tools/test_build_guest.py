"""The guest's build: only static programs for this machine, only when a source changed, one build at a time."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import build_guest
import pytest
from build_guest import TARGETS, BuildError, build, check_static, source_hash

ROOT = Path(__file__).resolve().parents[2]
MACHINE = platform.machine()
STATIC, DYNAMIC = Path("/bin/busybox"), Path("/bin/cat")
# Stands for cargo: says that it built programs, and delivers busybox, which is static, as all of them and the library.
CARGO = f"""#!/bin/sh
[ "$1" != build ] || echo ran >> "$FAKE_CARGO_LOG"
out=$CARGO_TARGET_DIR/{TARGETS[MACHINE]}/release
mkdir -p "$out" || exit 1
for name in launch pilot vmexec vminitd libpreload.so; do cp "$FAKE_CARGO_RESULT" "$out/$name" || exit 1; done
exit "$FAKE_CARGO_STATUS"
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout, and a cargo on PATH that compiles nothing."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "proto", root / "proto")
    (root / "guest" / "target").mkdir(parents=True)
    (root / "guest" / "main.rs").write_text("fn main() {}")
    cargo = tmp_path / "bin" / "cargo"
    cargo.parent.mkdir()
    cargo.write_text(CARGO)
    cargo.chmod(0o755)
    environment = {
        "PATH": f"{cargo.parent}:/usr/bin:/bin",
        "CARGO_TARGET_DIR": str(tmp_path / "target"),
        "FAKE_CARGO_LOG": str(tmp_path / "log"),
        "FAKE_CARGO_RESULT": str(STATIC),
        "FAKE_CARGO_STATUS": "0",
    }
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    return root


def runs(checkout: Path) -> int:
    """How often cargo built the programs."""
    log = checkout.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_static_program_is_accepted() -> None:
    check_static(STATIC, MACHINE)
    with pytest.raises(BuildError, match="is for ELF machine"):
        check_static(STATIC, next(machine for machine in TARGETS if machine != MACHINE))


def test_a_program_with_an_interpreter_is_refused() -> None:
    with pytest.raises(BuildError, match="wants a dynamic linker"):
        check_static(DYNAMIC, MACHINE)


def test_what_is_no_elf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(BuildError, match="is not a little-endian 64-bit ELF file"):
        check_static(tmp_path / "script", MACHINE)


def test_programs_and_messages_are_built_once(checkout: Path) -> None:
    folder = build(checkout)
    assert sorted(path.name for path in folder.iterdir()) == ["launch", "libpreload.so", "pilot", "vmexec", "vminitd"]
    assert (checkout / "src/firkin/vminitd/_generated/agent_pb2.py").exists()
    build(checkout)
    assert runs(checkout) == 1


def test_a_changed_source_is_built_again(checkout: Path) -> None:
    build(checkout)
    (checkout / "guest" / "main.rs").write_text("fn main() { }")
    build(checkout)
    assert runs(checkout) == 2


def test_a_result_that_is_gone_is_built_again(checkout: Path) -> None:
    (build(checkout) / "vmexec").unlink()
    assert (build(checkout) / "vmexec").exists()


def test_what_cargo_leaves_in_target_is_no_source(checkout: Path) -> None:
    before = source_hash(checkout, MACHINE)
    (checkout / "guest" / "target" / "made.rs").touch()
    assert source_hash(checkout, MACHINE) == before


def test_a_failed_build_is_not_taken_for_fresh(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CARGO_STATUS", "101")
    with pytest.raises(BuildError, match="cargo failed with status 101"):
        build(checkout)
    monkeypatch.setenv("FAKE_CARGO_STATUS", "0")
    build(checkout)
    assert runs(checkout) == 2


def test_a_dynamic_result_is_not_delivered(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CARGO_RESULT", str(DYNAMIC))
    with pytest.raises(BuildError, match="dynamic linker"):
        build(checkout)
    assert not list((checkout / "src").rglob("vminitd/vminitd"))


def test_without_cargo_the_error_says_what_to_do(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    monkeypatch.setenv("HOME", str(checkout))
    with pytest.raises(BuildError, match=r"cargo is missing: run tools/setup\.sh"):
        build(checkout)


def test_an_unknown_machine_is_refused(checkout: Path) -> None:
    with pytest.raises(BuildError, match="no guest for pdp11"):
        build(checkout, "pdp11")


def test_two_builds_at_once_are_one(checkout: Path) -> None:
    code = "import sys; from pathlib import Path; import build_guest; build_guest.build(Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(checkout)]
    folder = Path(build_guest.__file__).parent
    builders = [subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [builder.wait() for builder in builders] == [0, 0]
    assert runs(checkout) == 1


def test_the_wheel_names_its_platform_and_carries_the_guest(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith(f"-py3-none-manylinux_2_17_{MACHINE}.musllinux_1_1_{MACHINE}.whl")
    with zipfile.ZipFile(wheel) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    for name in build_guest.PROGRAMS:
        assert modes[f"firkin/_guest/{MACHINE}/{name}"] & 0o111
    assert "firkin/vminitd/_generated/agent_pb2.py" in modes
