"""`firkin cp` as a process, on a container that another process owns, in a real VM."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import firkin as api
from firkin.oci import Image
from tests.cli.conftest import FIRKIN, Firkin

pytestmark = pytest.mark.vm
Start = Callable[..., "subprocess.Popen[str]"]
MIB = 1 << 20


@pytest.fixture(scope="module")
def box(busybox_image: Image) -> Iterator[api.Container]:
    """A container of this process, which the command line reaches by its control socket."""
    with api.Container.launch("busybox", ["sleep", "600"]) as box:
        yield box


def shell(box: api.Container, script: str) -> str:
    return str(box.run(["sh", "-ec", script], text=True, check=True).stdout)


def test_there_and_back(firkin: Firkin, box: api.Container, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a:b").write_bytes(os.urandom(MIB))
    for source, destination in ((tmp_path / "tree", f"{box.id}:/tmp"), (f"{box.id}:tmp/tree", tmp_path / "back")):
        done = firkin("cp", str(source), str(destination))
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert (tmp_path / "back" / "a:b").read_bytes() == (tmp_path / "tree" / "a:b").read_bytes()
    done = firkin("cp", "./a:b", f"{box.id}:/tmp/x", cwd=tmp_path / "tree")
    assert done.returncode == 0, done.stderr
    assert box.stat("/tmp/x").size == MIB


def test_a_tar_on_standard_output_and_input(box: api.Container, tmp_path: Path) -> None:
    shell(box, "mkdir -p /tmp/t/sub /tmp/u; echo hello > /tmp/t/sub/a; chown 5:6 /tmp/t/sub/a")
    out = subprocess.run([*FIRKIN, "cp", f"{box.id}:/tmp/t", "-"], capture_output=True, timeout=60, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert [(found.name, found.uid) for found in tar] == [("t", 0), ("t/sub", 0), ("t/sub/a", 5)]
    for flags in ((), ("-a",)):
        subprocess.run([*FIRKIN, "cp", *flags, "-", f"{box.id}:/tmp/u"], input=out, timeout=60, check=True)
        assert shell(box, "stat -c %u /tmp/u/t/sub/a") == ("5\n" if flags else "0\n")
    broken = subprocess.run(
        [*FIRKIN, "cp", "-", f"{box.id}:/tmp/u"], input=out[:1500], capture_output=True, timeout=60, check=False
    )
    assert (broken.returncode, b"archive" in broken.stderr) == (125, True)


def test_links_are_followed_where_asked(firkin: Firkin, box: api.Container, tmp_path: Path) -> None:
    shell(box, "echo real > /tmp/real; ln -sf real /tmp/sym")
    for flags in ((), ("-L",)):
        assert firkin("cp", *flags, f"{box.id}:/tmp/sym", str(tmp_path / f"sym{len(flags)}")).returncode == 0
    assert (tmp_path / "sym0").readlink() == Path("real")
    assert (tmp_path / "sym1").read_text() == "real\n"


@pytest.mark.parametrize(
    ("source", "destination", "said"),
    [
        ("a", "b", "one of SOURCE and DESTINATION"),
        ("{}:/a", "{}:/b", "one of SOURCE and DESTINATION"),
        ("{}:/nowhere", "x", "No such file"),
        ("/nowhere", "{}:/tmp", "there is no"),
        ("/etc/passwd", "{}:/none/x", "No such file"),
        ("/etc/passwd", "{}:/none/", "make it first"),
        ("{}:/etc", "/etc/passwd", "can't replace"),
        ("{}:/etc/passwd", "/none/x", "make it first"),
        ("none:/a", "b", "alive"),
        ("{}:/dev/null", "x", "device"),
    ],
)
def test_errors_are_one_line(
    source: str, destination: str, said: str, firkin: Firkin, box: api.Container, tmp_path: Path
) -> None:
    done = firkin("cp", source.format(box.id), destination.format(box.id), cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_given_up_in_the_middle(end: signal.Signals, box: api.Container, tmp_path: Path, start_firkin: Start) -> None:
    """Nothing half is left on either side, and the container goes on."""
    read_end, write_end = os.pipe()
    into = start_firkin("cp", "-", f"{box.id}:/root", stdin=read_end)
    os.close(read_end)
    info = tarfile.TarInfo("half")
    info.size = 8 * MIB
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(info.tobuf() + bytes(2 * MIB))
        pipe.flush()
        into.send_signal(end)
        into.communicate(timeout=30)
    shell(box, "rm -f /tmp/big; head -c 64m /dev/zero > /tmp/big")
    out = start_firkin("cp", f"{box.id}:/tmp/big", str(tmp_path / "big"))
    limit = time.monotonic() + 30
    while not any(str(tmp_path) in opened for opened in descriptors(out.pid)):
        assert time.monotonic() < limit
        assert out.poll() is None
    out.send_signal(end)
    out.communicate(timeout=30)
    assert list(tmp_path.iterdir()) == []
    limit = time.monotonic() + 10
    while shell(box, "ls -A /root") and time.monotonic() < limit:
        pass
    assert shell(box, "ls -A /root; rm /tmp/big") == ""


def descriptors(pid: int) -> list[str]:
    """What the process has open, as /proc names it; what is closed just now counts as nothing."""
    found = []
    for number in range(32):
        with contextlib.suppress(OSError):
            found.append(str(Path(f"/proc/{pid}/fd/{number}").readlink()))
    return found
