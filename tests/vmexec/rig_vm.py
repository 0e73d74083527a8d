"""The conformance VM: builds its initramfs, boots it once over a table of rows, and reads what came of each.

The programs inside are compiled from rig/*.c: under software emulation a Python would cost more than all rows.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firkin.types.state import StateDirs
from firkin.vmm.initramfs import Entry, directory, file, newc
from firkin.vmm.kernel import extract_vmlinux, find_kernel
from firkin.vmm.modules import module_closure, read_module
from firkin.vmm.tsc import tsc_khz

RIG = Path(__file__).parent / "rig"
MODULES = ("virtio_mmio", "virtio_console", "overlay", "bfq")
MEMORY = "512M"
USERS = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\nbob:x:1001:101::/home/bob:\n",
    "etc/group": b"root:x:0:\nusers:x:100:\naudio:x:29:ann,bob\nvideo:x:44:\nstaff:x:50:ann\n",
}
SCRIPTS = {
    "bin/script": b"#!/bin/probe\n",
    "bin/no-shebang": b"echo\n",
    "bin/lost-interpreter": b"#!/bin/nowhere\n",
}


@dataclass(frozen=True)
class Row:
    """One specification, as each runtime gets it; `exec` is a process object for a further process. `crun` may not."""

    name: str
    vmexec: Mapping[str, Any]
    crun: Mapping[str, Any] | None
    vmexec_exec: Mapping[str, Any] | None = None
    crun_exec: Mapping[str, Any] | None = None
    tty: bool = False

    def entries(self, number: int) -> Iterator[Entry]:
        """Its files in the initramfs."""
        folder = f"rows/{number:04}"
        words = {"exec": self.vmexec_exec, "tty": self.tty, "alone": self.crun is None}
        how = [word for word, holds in words.items() if holds]
        yield directory(folder)
        yield file(f"{folder}/how", " ".join(how).encode() + b"\n")
        for name, content in (
            ("vmexec.json", self.vmexec),
            ("crun.json", self.crun),
            ("vmexec.exec", self.vmexec_exec),
            ("crun.exec", self.crun_exec),
        ):
            if content is not None:
                yield file(f"{folder}/{name}", json.dumps(content).encode())


@dataclass(frozen=True)
class Outcome:
    """What came of a row under one runtime."""

    code: int
    failed: bool
    ready_us: int
    total_us: int
    output: bytes

    @property
    def error(self) -> dict[str, Any]:
        """What vmexec said of its failure."""
        return json.loads(self.output) if self.failed else {}

    @property
    def seen(self) -> dict[str, Any]:
        """What the probe said; empty if it never ran."""
        text = self.output.replace(b"\r\n", b"\n")
        return json.loads(text) if text.startswith(b"{") and not self.failed else {}


@dataclass
class Results:
    """Outcomes by name of row, the namespaces that rows can join, lines that were neither, and the clock's rate."""

    vmexec: dict[str, Outcome] = field(default_factory=dict)
    crun: dict[str, Outcome] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    noise: list[bytes] = field(default_factory=list)
    tsc_khz: int = 0


def compile_programs(folder: Path) -> None:
    """`rig` and `probe`, static, in `folder`."""
    for name in ("rig", "probe"):
        command = ["gcc", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-o", folder / name, RIG / f"{name}.c"]
        subprocess.run(command, check=True)


def _with_libraries(program: str) -> Iterator[Entry]:
    """A program of this host and what its loader needs, at their own paths."""
    path = shutil.which(program)
    assert path, f"{program} is missing (run tools/setup.sh tests)"
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    folders = set()
    for library in re.findall(r"(/\S+) \(0x", listed):
        parts = library.strip("/").split("/")
        for depth in range(1, len(parts)):
            if (parent := "/".join(parts[:depth])) not in folders:
                folders.add(parent)
                yield directory(parent)
        yield file(library.strip("/"), Path(library).read_bytes(), 0o755)
    yield file(f"bin/{program}", Path(path).read_bytes(), 0o755)


def _entries(
    programs: Path, vmexec: Path, modules: Iterable[Path], rows: Iterable[Row], bench: bool
) -> Iterator[Entry]:
    yield from map(directory, ("bin", "mod", "rows", "tree", "tree/bin", "tree/etc", "tree/home", "tree/home/ann"))
    yield directory("tree/tmp", 0o1777)
    yield file("init", (programs / "rig").read_bytes(), 0o755)
    yield file("bin/vmexec", vmexec.read_bytes(), 0o755)
    yield from _with_libraries("crun")
    for number, module in enumerate(modules):
        yield file(f"mod/{number:02}-{module.name.split('.')[0]}.ko", read_module(module))
    yield file("tree/bin/probe", (programs / "probe").read_bytes(), 0o755)
    yield Entry("tree/link", stat.S_IFLNK | 0o777, b"/linked")
    for path, content in USERS.items():
        yield file(f"tree/{path}", content)
    for path, content in SCRIPTS.items():
        yield file(f"tree/{path}", content, 0o755)
    if bench:
        yield directory("rows/plain")
    for number, row in enumerate(rows):
        yield from row.entries(number)


def boot(
    folder: Path,
    vmexec: Path,
    dirs: StateDirs,
    rows: list[Row],
    *,
    limit: float = 280,
    bench: bool = False,
    count: bool = False,
) -> Results:
    """Run all rows under both runtimes in one VM; `folder` takes the files made for it.

    `limit` is the longest silence, in seconds. `bench` runs crun as it is; a table runs it from a sealed file, which
    saves it a copy of itself. With `count` the time stamp counter counts the guest's instructions (QEMU's -icount), so
    that `total_us * tsc_khz / 1000` is their number.
    """
    kernel = find_kernel(dirs)
    assert kernel.modules is not None, f"the kernel {kernel.path} has no modules"
    tsc = tsc_khz() or 0
    assert tsc or not count, "this host has no time stamp counter"
    compile_programs(folder)
    modules = module_closure(kernel.modules, MODULES)
    (folder / "initrd").write_bytes(newc(_entries(folder, vmexec, modules, rows, bench)))
    (folder / "vmlinux").write_bytes(extract_vmlinux(kernel.path.read_bytes()))
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(folder / "console"))
        listener.listen(1)
        command = [*_qemu(folder, tsc), *(("-icount", "shift=0,sleep=off") if count else ())]
        with (folder / "qemu.log").open("wb") as log:
            qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            listener.settimeout(20)
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(limit)
                return _read(connection, rows, tsc)
        finally:
            qemu.kill()
            qemu.wait()


def _qemu(folder: Path, tsc: int) -> list[str]:
    cmdline = "panic=-1 reboot=t quiet" + (f" tsc_early_khz={tsc}" if tsc else "")
    return [
        *("qemu-system-x86_64", "-M", "microvm,acpi=on,rtc=on", "-accel", "tcg", "-cpu", "Nehalem,+rdrand,+arat"),
        *("-m", MEMORY, "-smp", "1", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"),
        *("-global", "virtio-mmio.force-legacy=false", "-device", "virtio-serial-device"),
        *("-chardev", f"socket,id=console,path={folder}/console", "-device", "virtconsole,chardev=console"),
        *("-serial", f"file:{folder}/boot.log"),
        *("-kernel", f"{folder}/vmlinux", "-initrd", f"{folder}/initrd", "-append", f"console=ttyS0 {cmdline}"),
    ]


def _read(connection: socket.socket, rows: list[Row], tsc: int) -> Results:
    results = Results(tsc_khz=tsc)
    stream = connection.makefile("rb")
    while line := stream.readline():
        words = line.decode(errors="replace").split()
        match words[:2]:
            case ["==", "end"]:
                return results
            case ["==", "given"]:
                results.given.add(words[2])
            case ["==", "rig:"]:
                raise AssertionError(f"the rig failed: {line!r}")
            case ["==", number]:
                _, _, runtime, code, failed, ready, total, length = words
                output = stream.read(int(length))
                outcome = Outcome(int(code), failed == "1", int(ready), int(total), output)
                getattr(results, runtime)[rows[int(number)].name] = outcome
            case _:
                # What a program wrote to the console of the rig itself: a pause container's failure.
                results.noise.append(line)
    raise AssertionError(f"the VM ended before its table did; last lines: {results.noise[-5:]}")
