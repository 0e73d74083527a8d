"""Live shares in real VMs: both sides at once, hostile names, links, locks, and what happens when one side dies."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import firkin
from firkin.errors import FirkinError, InvalidInputError, VirtualMachineError
from firkin.oci import Image

pytestmark = pytest.mark.vm
# What a guest may not be able to say, but a file system can.
NAMES = (b"two\nlines", b"not utf-8 \xff\xfe", b"n" * 255, b" -rf *", b"\x01\x1b[2J", "ü".encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outside = tmp_path_factory.mktemp("shares")
    (outside / "secret").write_text("of the host\n")
    (outside / "shared").mkdir()
    return outside / "shared"


@pytest.fixture(scope="module")
def guest(folder: Path, debian_python_image: Image) -> Iterator[firkin.Container]:
    with firkin.Container.launch("debian-python", ["sleep", "600"], mounts=[f"{folder}:/s"]) as container:
        yield container


def python(container: firkin.Container, code: str) -> str:
    """What `code` prints in the container."""
    done = container.run(["python3", "-c", f"import os\n{code}"], text=True, timeout=120)
    assert done.stderr == ""
    return str(done.stdout)


def test_a_thousand_files_of_each_side(guest: firkin.Container, folder: Path) -> None:
    (folder / "host").mkdir()
    (folder / "guest").mkdir()
    for number in range(1000):
        (folder / "host" / str(number)).write_text(f"host {number}")
    code = """
for number in range(1000):
    with open(f"/s/guest/{number}", "w") as file: file.write(f"guest {number}")
print(sum(open(f"/s/host/{number}").read() == f"host {number}" for number in range(1000)), len(os.listdir("/s/host")))
"""
    assert python(guest, code) == "1000 1000\n"
    assert {path.name: path.read_text() for path in (folder / "guest").iterdir()} == {
        str(number): f"guest {number}" for number in range(1000)
    }
    for name in ("host", "guest"):
        shutil.rmtree(folder / name)
    assert python(guest, "print(os.listdir('/s'))") == "[]\n"


def test_hostile_names_of_either_side(guest: firkin.Container, folder: Path) -> None:
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes(name)
    code = f"""
names = sorted(os.listdir(b"/s"))
print(names == sorted({list(NAMES)!r}), all(open(b"/s/" + name, "rb").read() == name for name in names))
for name in names:
    os.rename(b"/s/" + name, b"/s/" + name[:-1] + b"!")
"""
    assert python(guest, code) == "True True\n"
    assert sorted(os.fsencode(path.name) for path in folder.iterdir()) == sorted(name[:-1] + b"!" for name in NAMES)
    for path in list(folder.iterdir()):
        path.unlink()


def test_links_lead_to_the_guests_own_files(guest: firkin.Container, folder: Path) -> None:
    (folder / "up").symlink_to("../secret")
    (folder / "out").symlink_to(folder.parent / "secret")
    (folder / "name").symlink_to("/etc/hostname")
    assert python(guest, "print([os.path.exists('/s/' + name) for name in ('up', 'out')])") == "[False, False]\n"
    assert python(guest, "print(open('/s/name').read().strip())") == "vm\n"
    # And the guest's lead nowhere on the host.
    python(guest, "os.symlink('/' + '../' * 40 + 'etc/shadow', '/s/mine'); os.mkfifo('/s/fifo')")
    assert str((folder / "mine").readlink()).endswith("etc/shadow")
    for path in list(folder.iterdir()):
        path.unlink()


def test_a_guest_with_every_right_makes_files_and_nothing_else(
    busybox_image: Image, debian_python_image: Image, tmp_path: Path
) -> None:
    """As docs/decisions/mounts.md says: neither device nodes nor capabilities of files arrive on the host."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")
    (tmp_path / "open").mkdir()
    code = """
import errno, os, stat, struct
def tried(work, *given):
    try:
        work(*given)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
open("/open/tool", "w").close()
capability = struct.pack("<IIIII", 0x02000001, 0xffffffff, 0, 0xffffffff, 0)
print(tried(os.mknod, "/open/disk", stat.S_IFBLK | 0o666, os.makedev(254, 0)),
      tried(os.mknod, "/open/null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
      tried(os.setxattr, "/open/tool", "security.capability", capability),
      tried(os.setxattr, "/open/tool", "trusted.overlay.opaque", b"y"),
      os.system("mount -o remount,rw /kept 2>/dev/null") and "refused",
      tried(os.unlink, "/kept/file"), tried(os.chmod, "/kept/file", 0o777), tried(os.chown, "/kept", 1, 1),
      tried(os.rename, "/kept/file", "/kept/other"), tried(os.link, "/kept/file", "/open/link"))
"""
    mounts = [f"{tmp_path}/open:/open", f"{tmp_path}/kept:/kept:ro"]
    done = firkin.run("debian-python", ["python3", "-c", code], mounts=mounts, privileged=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    *made, _, a, b, c, d, e = str(done.stdout).split()
    assert made == ["EPERM", "EPERM", "ENOTSUP", "ENOTSUP"]
    assert [a, b, c, d, e] == ["EROFS", "EROFS", "EROFS", "EROFS", "EXDEV"]
    assert [path.name for path in (tmp_path / "open").iterdir()] == ["tool"]
    assert os.listxattr(tmp_path / "open/tool") == []
    assert (tmp_path / "kept/file").read_text() == "kept"
    assert (tmp_path / "kept/file").stat().st_mode & 0o777 != 0o777


def test_locks_hold_in_the_vm_and_memory_maps_reach_the_host(guest: firkin.Container, folder: Path) -> None:
    """As docs/decisions/mounts.md says."""
    (folder / "map").write_bytes(b"-" * 8192)
    code = """
import fcntl, mmap
with open("/s/map", "r+b") as first, open("/s/map", "r+b") as second:
    fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        print("locked", flush=True)
    input()
    with mmap.mmap(first.fileno(), 8192) as area:
        area[:5] = b"guest"
        area.flush()
        print(area[8187:])
"""
    piped = firkin.Stdio.PIPED
    process = guest.exec(["python3", "-c", code], stdin=piped, stdout=piped)
    assert process.stdout is not None
    assert process.stdin is not None
    assert line(process.stdout) == b"locked\n"
    with (folder / "map").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(8188)
        file.write(b"host")
    process.stdin.write(b"\n")
    assert line(process.stdout) == b"b'-host'\n"
    assert process.wait().code == 0
    assert (folder / "map").read_bytes()[:6] == b"guest-"
    (folder / "map").unlink()


@pytest.mark.parametrize("fork", [True, False], ids=["fork", "boot"])
def test_forks_share_and_boots_too(fork: bool, busybox_image: Image, tmp_path: Path) -> None:
    folders = [_made(tmp_path / str(number)) for number in range(8)]
    for number, folder in enumerate(folders):
        (folder / "number").write_text(f"{number}\n")
    mounts = [f"{folder}:/s/{folder.name}{':ro' if number % 2 else ''}" for number, folder in enumerate(folders)]
    with firkin.Container.launch("busybox", ["sleep", "600"], mounts=mounts, fork=fork) as container:
        assert ("restore" in container.timings.phases) is fork
        assert container.run(["sh", "-c", "cat /s/*/number"]).stdout == b"0\n1\n2\n3\n4\n5\n6\n7\n"
        container.run(["sh", "-c", "for i in /s/*; do echo back > $i/back; done"])
    assert [(folder / "back").exists() for folder in folders] == [True, False] * 4


def test_a_share_that_the_host_removes_gives_errors(busybox_image: Image, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    script = "exec 2>&1; cd /s; exec 3< file; echo ready; read line; cat <&3; echo; cat file; echo new > new; echo done"
    with firkin.Container.launch(
        "busybox",
        ["sh", "-c", script],
        mounts=[f"{source}:/s"],
        stdin=firkin.Stdio.PIPED,
        stdout=firkin.Stdio.PIPED,
    ) as container:
        process = container.process
        assert process.stdout is not None
        assert process.stdin is not None
        assert line(process.stdout) == b"ready\n"
        shutil.rmtree(source)
        process.stdin.write(b"\n")
        said = process.stdout.read_all().decode()
        assert container.wait(30).code == 0
    assert said.startswith("content\n"), "an open file stays open"
    assert said.splitlines()[1:] == [
        "cat: can't open 'file': No such file or directory",
        "sh: can't create new: nonexistent directory",
        "done",
    ]


def line(pipe: firkin.Pipe) -> bytes:
    """All up to a line's end."""
    said = b""
    while not said.endswith(b"\n"):
        said += pipe.read()
    return said


def _daemons() -> list[int]:
    """The virtiofsds of this process's VMs."""
    found = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if line.endswith(" virtiofsd")]


@pytest.mark.parametrize("whom", ["outer", "inner"])
def test_a_virtiofsd_that_dies_ends_its_vm_and_says_so(whom: str, busybox_image: Image, tmp_path: Path) -> None:
    before = set(_daemons())
    with firkin.Container.launch("busybox", ["sleep", "600"], mounts=[f"{tmp_path}:/s"]) as container:
        (daemon,) = set(_daemons()) - before
        victim = daemon
        if whom == "inner":
            children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
            victim = int(children[0])
        reading = container.exec(["sh", "-c", "while :; do ls /s; done"])
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(VirtualMachineError, match=f"the virtiofsd of {tmp_path} (was killed by SIGKILL|exited)"):
            reading.wait(20)
        with pytest.raises(VirtualMachineError, match=f"the virtiofsd of {tmp_path}"):
            container.run(["true"])
        assert time.monotonic() - began < 10


def test_what_cannot_be_shared_is_told_before_any_vm(busybox_image: Image, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is nothing to mount at"):
        firkin.run("busybox", ["true"], mounts=[f"{tmp_path}/none:/s"])
    with pytest.raises(FirkinError, match="at most 8 shares"):
        firkin.run("busybox", ["true"], mounts=[f"{_made(tmp_path / str(number))}:/s{number}" for number in range(9)])


def _made(path: Path) -> Path:
    path.mkdir()
    return path
