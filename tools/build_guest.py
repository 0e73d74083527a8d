"""Build what Firkin needs beside its Python: the guest's programs, a library for QEMU (cargo), the messages (protobuf).

They land in `src/firkin/_guest/<machine>/` and `src/firkin/vminitd/_generated/`. Quick where nothing changed: a stamp
holds the hash of every source. The programs are static: the guest has no dynamic linker, which is checked in the ELF.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import protos

PROGRAMS = ("launch", "pilot", "vminitd", "vmexec")
LIBRARY = "preload"
TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine of the ELF specification
PT_INTERP = 3


class BuildError(Exception):
    """The guest can't be built; one line that says why."""


def sources(root: Path) -> Iterator[Path]:
    """Every file that the results depend on, in a fixed order."""
    yield Path(__file__)
    yield Path(protos.__file__)
    yield from protos.inputs(root)
    for folder, names, files in os.walk(root / "guest"):
        names[:] = sorted(name for name in names if not name.startswith("target"))
        yield from (Path(folder, name) for name in sorted(files) if name.endswith((".rs", ".toml", ".lock", ".proto")))


def source_hash(root: Path, machine: str) -> str:
    """SHA-256 over names and contents of the sources, and what in the environment changes the compiler's work."""
    total = hashlib.sha256(f"{machine}\0{os.environ.get('RUSTFLAGS', '')}\0".encode())
    for path in sources(root):
        content = path.read_bytes()
        total.update(f"{os.path.relpath(path, root)}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def check_static(path: Path, machine: str) -> None:
    """Raise `BuildError` unless `path` is an ELF for `machine` without an interpreter (System V ABI, chapter 5)."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise BuildError(f"{path} is not a little-endian 64-bit ELF file")
    if (found := struct.unpack_from("<H", data, 18)[0]) != ELF_MACHINES[machine]:
        raise BuildError(f"{path} is for ELF machine {found}, not for {machine}")
    offset = struct.unpack_from("<Q", data, 32)[0]
    size, count = struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, offset + size * number)[0] for number in range(count)]
    if PT_INTERP in kinds:
        raise BuildError(f"{path} wants a dynamic linker; guest/.cargo/config.toml must set crt-static")


def cargo() -> str:
    """The path of cargo, also where rustup's folder is not on PATH."""
    places = os.pathsep.join([os.environ.get("PATH", ""), str(Path.home() / ".cargo" / "bin")])
    found = shutil.which("cargo", path=places)
    if found is None:
        raise BuildError("cargo is missing: run tools/setup.sh, or install a stable Rust toolchain")
    return found


def compile_programs(root: Path, machine: str) -> Iterator[Path]:
    """Compile the programs and the library for `machine`, check them, and give their paths."""
    target = TARGETS[machine]
    target_dir = Path(os.environ.get("CARGO_TARGET_DIR") or root / "guest" / "target").absolute()
    common = ["--release", "--locked", "--quiet", "--target", target, "--target-dir", str(target_dir)]
    results = target_dir / target / "release"
    run_cargo(root, ["build", *common, *(f"--package={name}" for name in PROGRAMS)])
    for name in PROGRAMS:
        check_static(results / name, machine)
        yield results / name
    # RUSTFLAGS take the place of what guest/.cargo/config.toml says. It has no libc of its own, and needs none.
    flags = "-C link-arg=-nostdlib -C link-arg=-nostartfiles"
    run_cargo(root, ["rustc", *common, f"--package={LIBRARY}", "--crate-type=cdylib"], RUSTFLAGS=flags)
    library = results / f"lib{LIBRARY}.so"
    check_static(library, machine)
    yield library


def run_cargo(root: Path, arguments: list[str], **environ: str) -> None:
    """Run cargo in guest/: it looks for .cargo/config.toml from its working folder upwards. Raises `BuildError`."""
    done = subprocess.run([cargo(), *arguments], cwd=root / "guest", env=os.environ | environ, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise BuildError(f"cargo failed with status {done.returncode} (its own words are above)")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`: one build at a time in a checkout."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(root: Path, machine: str | None = None) -> Path:
    """Build all of it below `root` unless it is fresh, and return the folder with the programs. Raises `BuildError`."""
    machine = machine or platform.machine()
    if machine not in TARGETS:
        raise BuildError(f"no guest for {machine}; there is one for {' and '.join(TARGETS)}")
    folder = root / "src" / "firkin" / "_guest" / machine
    state = root / ".build"
    state.mkdir(exist_ok=True)
    with locked(state / "guest.lock"):
        stamp = state / f"guest-{machine}.stamp"
        wanted = source_hash(root, machine)
        outputs = [*(folder / name for name in (*PROGRAMS, f"lib{LIBRARY}.so")), root / "src/firkin/vminitd/_generated"]
        if stamp.exists() and stamp.read_text() == wanted and all(path.exists() for path in outputs):
            return folder
        print(f"guest: building for {machine}", file=sys.stderr)
        try:
            protos.generate(root)
        except RuntimeError as error:
            raise BuildError(str(error)) from error
        folder.mkdir(parents=True, exist_ok=True)
        for path in compile_programs(root, machine):
            # A running VM may have the old file open: replace it, never write into it.
            fresh = folder / f".{path.name}"
            shutil.copy2(path, fresh)
            fresh.replace(folder / path.name)
        stamp.write_text(wanted)
    return folder


def main() -> None:
    """Build for this machine, or for the one named by the first argument."""
    try:
        build(Path(__file__).resolve().parent.parent, sys.argv[1] if len(sys.argv) > 1 else None)
    except BuildError as error:
        sys.exit(f"guest: {error}")


if __name__ == "__main__":
    main()
