"""Warm images: made once, found again, rebuilt when damaged; and starts that are fresh in what must differ."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firkin import Container, Stdio, WarmPool, run, warm_image
from firkin.errors import ImageError, InvalidInputError
from firkin.oci import Image
from firkin.types import StateDirs

pytestmark = pytest.mark.vm

SHAPE = {"cpus": 1, "memory": "256m"}
IDENTITY = "hostname; cat /proc/sys/kernel/random/uuid; tail -n 1 /etc/hosts; echo $$"


@pytest.fixture(scope="module", autouse=True)
def own(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with warm images and remembered commands of its own, all else is that of all tests.

    What runs beside these tests has a command before its start as soon as one is remembered.
    """
    shared, own = StateDirs.under(home), tmp_path_factory.mktemp("home")
    for name in ("data", "run"):
        (own / name).symlink_to(shared.make(name))
    (own / "cache").mkdir(mode=0o700)
    for name in ("assets", "base", "rootfs", "seccomp"):
        (own / "cache" / name).symlink_to(shared.make("cache", name).resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRKIN_HOME", str(own))
        yield own


def folders(own: Path) -> list[Path]:
    return [path for path in (StateDirs.under(own).cache / "warm").iterdir() if path.is_dir()]


def test_a_start_waits_for_no_disk(own: Path, busybox_image: Image) -> None:
    reads = ["cat", "/sys/fs/cgroup/io.stat"]
    assert run("busybox", reads, text=True, warm=True, **SHAPE).stdout == ""
    # What one sees that had to read.
    assert "rbytes=" in str(run("busybox", reads, text=True, **SHAPE).stdout)


def test_it_is_made_at_the_first_start_and_forked_by_every_other(own: Path, busybox_image: Image) -> None:
    several = [run("busybox", ["sh", "-c", IDENTITY], text=True, warm=True, **SHAPE) for _ in range(3)]
    first = [str(done.stdout).split("\n") for done in several]
    for index in range(3):
        assert len({lines[index] for lines in first}) == 3, first
    assert all(lines[2].split() == ["127.0.1.1", lines[0]] for lines in first)
    assert all(lines[3] == "1" for lines in first)
    made = {path.name: path.stat().st_ino for path in folders(own)}
    with Container.launch("busybox", ["sh", "-c", "echo x > /left; sleep 60"], warm=True, **SHAPE) as container:
        done = container.run(["sh", "-c", "sleep 0.2; cat /left; hostname"], text=True)
        assert str(done.stdout).split() == ["x", container.id]
    # What one wrote is not in another's root.
    assert run("busybox", ["ls", "/left"], warm=True, **SHAPE).returncode == 1
    assert {path.name: path.stat().st_ino for path in folders(own)} == made


def test_what_its_clones_write_first_is_known_and_a_wrong_list_harms_nothing(own: Path, busybox_image: Image) -> None:
    made = warm_image("busybox", **SHAPE)
    pages = StateDirs.under(own).cache / "warm" / made.key / "first-pages"
    content = pages.read_bytes()
    size, *words = struct.unpack(f"<Q{len(content) // 4 - 2}I", content)
    assert size == 256 << 20
    assert 100 < sum(words[1::2]) < 4096, "what a start writes"
    runs = list(zip(words[::2], words[1::2], strict=True))
    assert all(first + count <= size >> 12 for first, count in runs)
    assert runs == sorted(runs)
    for wrong in (b"", os.urandom(4096), struct.pack("<QII", size, 0, 8192)):
        pages.write_bytes(wrong)
        assert run("busybox", ["echo", "hi"], text=True, warm=True, **SHAPE).stdout == "hi\n"
    pages.unlink()
    assert run("busybox", ["echo", "hi"], text=True, warm=True, **SHAPE).stdout == "hi\n"
    # It is a hint: nothing was made again.
    assert not pages.exists()
    assert not warm_image("busybox", **SHAPE).made


def test_a_command_runs_first_and_is_remembered(own: Path, busybox_image: Image) -> None:
    prepare = ["sh", "-c", "echo prepared > /prepared; exec >&- 2>&-; while sleep 1; do :; done"]
    made = warm_image("busybox", prepare, **SHAPE)
    assert (made.made, made.command) == (True, tuple(prepare))
    assert not warm_image("busybox", prepare, **SHAPE).made
    with Container.launch("busybox", ["sleep", "60"], warm=True, **SHAPE) as container:
        assert container.run(["cat", "/prepared"]).stdout == b"prepared\n"
    # One that was damaged is made again, the same way.
    (folder,) = (path for path in folders(own) if path.name == made.key)
    with (folder / "state").open("r+b") as state:
        state.write(b"damaged")
    assert run("busybox", ["cat", "/prepared"], warm=True, **SHAPE).stdout == b"prepared\n"
    # Without a command it is as the image is.
    assert warm_image("busybox", **SHAPE).made
    assert run("busybox", ["cat", "/prepared"], warm=True, **SHAPE).returncode == 1


def test_a_pool_of_one_whose_command_goes_on(busybox_image: Image) -> None:
    server = ["sh", "-c", "exec >&- 2>&-; while sleep 1; do date +%s%N > /beat; done"]
    assert warm_image("busybox", server, **SHAPE).made
    with WarmPool("busybox", size=1, **SHAPE) as pool, pool.lease(["sleep", "60"]) as container:
        beats = {container.run(["sh", "-c", "sleep 1.5; cat /beat"], text=True, check=True).stdout for _ in range(2)}
    assert len(beats) == 2
    warm_image("busybox", **SHAPE)


def test_a_command_that_fails_makes_none(busybox_image: Image) -> None:
    with pytest.raises(ImageError, match="ended with 3"):
        warm_image("busybox", ["sh", "-c", "exit 3"], **SHAPE)
    with pytest.raises(ImageError, match="can't be run"):
        warm_image("busybox", ["/no/such/program"], **SHAPE)
    warm_image("busybox", **SHAPE)


def test_what_a_warm_image_can_not_have_is_named(busybox_image: Image, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="live shares"):
        run("busybox", ["true"], warm=True, mounts=[f"{tmp_path}:/x"])


@pytest.mark.parametrize("point", ["warm.before-publish"])
def test_killed_while_it_is_made(
    point: str, own: Path, busybox_image: Image, check_nothing_is_left: Callable[[], None]
) -> None:
    script = "from firkin import warm_image; warm_image('busybox', ['true', 'killed'], cpus=1, memory='256m')"
    environ = os.environ | {"FIRKIN_FAULT": f"{point}=kill"}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    check_nothing_is_left()
    assert len(list((own / "cache" / "warm").glob(".new-*"))) == 1
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not list((own / "cache" / "warm").glob(".new-*"))


def test_the_command_line(busybox_image: Image) -> None:
    firkin = [sys.executable, "-c", "from firkin.cli import main; main()"]
    flags = ["--cpus", "1", "--memory", "256m"]
    told = subprocess.run(
        [*firkin, "image", "warm", *flags, "--format", "json", "busybox"], capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["image"].endswith("busybox:latest")
    done = subprocess.run(
        [*firkin, "run", "--warm", *flags, "busybox", "echo", "hi"], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.returncode) == ("hi\n", 0), done.stderr


def test_streams_and_exit_codes_are_as_of_any_start(busybox_image: Image) -> None:
    with Container.launch(
        "busybox", ["sh", "-c", "cat; exit 7"], stdin=Stdio.PIPED, stdout=Stdio.PIPED, warm=True, **SHAPE
    ) as container:
        assert container.process.stdin is not None
        assert container.process.stdout is not None
        container.process.stdin.write(b"through")
        container.process.stdin.close()
        assert container.process.stdout.read_all() == b"through"
        assert container.wait().code == 7


_SEEN = """cut -d' ' -f5,9 /proc/self/mountinfo | sort; pwd; id -u; ls /dev
grep -E 'Cap|Seccomp|NoNewPrivs' /proc/self/status"""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"read_only": True, "user": "1000:1000", "working_dir": "/made/for/it", "hostname": "own"},
        {"tmpfs": ["/made"]},
        {"privileged": True},
    ],
    ids=["as it waits", "with a program of its own", "with a mount", "privileged"],
)
def test_a_warm_container_is_what_a_cold_one_is(options: dict[str, Any], busybox_image: Image) -> None:
    program = ["sh", "-c", _SEEN]
    warm, cold = (run("busybox", program, text=True, warm=warm, **options, **SHAPE) for warm in (True, False))
    assert (warm.returncode, warm.stdout) == (0, cold.stdout)
