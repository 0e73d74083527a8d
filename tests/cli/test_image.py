"""`firkin image`, `pull`, `push`, `login`: what they print, and how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oci.builders import Layout
from tests.oci.registry.servers import Registry, docker_registry


def firkin(home: Path, *arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", "from firkin.cli.main import main; main()", *map(str, arguments)],
        env={**os.environ, "FIRKIN_HOME": str(home), "DOCKER_CONFIG": str(home), "HOME": str(home)},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=120,
    )


def printed(home: Path, *arguments: object, stdin: bytes | None = None) -> str:
    ended = firkin(home, *arguments, stdin=stdin)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    made = Layout()
    made.name("localhost/hello:1", made.image({"etc/hello": b"hello\n"}, Cmd=["/x"]))
    return made.write(tmp_path / "layout")


def test_load_list_inspect_tag_and_remove(tmp_path: Path, layout: Path) -> None:
    home = tmp_path / "home"
    assert printed(home, "image", "load", layout) == "Loaded image: localhost/hello:1\n"
    identity = printed(home, "image", "ls", "-q").strip()
    table = printed(home, "image", "ls").splitlines()
    assert table[0].split() == ["IMAGE", "ID", "PLATFORM", "CREATED", "SIZE"]
    assert table[1].split()[:3] == ["localhost/hello:1", identity, "linux/amd64"]
    (row,) = json.loads(printed(home, "image", "ls", "--format", "json"))
    assert row["reference"] == "localhost/hello:1"
    assert row["id"][7:19] == identity
    printed(home, "image", "tag", "hello:1", "other:2", "quay.io/x:3")
    (shown,) = json.loads(printed(home, "image", "inspect", identity))
    assert shown["names"] == ["localhost/hello:1", "localhost/other:2", "quay.io/x:3"]
    assert shown["config"]["config"]["Cmd"] == ["/x"]
    assert json.loads(printed(home, "image", "history", "--format", "json", "hello:1")) == []
    assert printed(home, "image", "rm", "hello:1", "other:2", "quay.io/x:3").count("\n") == 3
    assert printed(home, "image", "ls", "-q") == ""
    assert printed(home, "image", "prune").endswith("freed\n")


def test_files_in_an_image(tmp_path: Path, layout: Path) -> None:
    home = tmp_path / "home"
    printed(home, "image", "load", "-i", layout)
    assert printed(home, "image", "cat", "hello:1", "/etc/hello") == "hello\n"
    assert printed(home, "image", "ls", "-q", "hello:1", "/etc") == "hello\n"
    assert printed(home, "image", "ls", "hello:1", "/etc").split()[0] == "-rw-r--r--"
    (row,) = json.loads(printed(home, "image", "ls", "--format", "json", "hello:1", "/etc/hello"))
    assert (row["size"], row["target"]) == (6, None)


def test_archives_through_pipes(tmp_path: Path, layout: Path) -> None:
    home = tmp_path / "home"
    printed(home, "image", "load", layout)
    saved = firkin(home, "image", "save", "hello:1").stdout
    other = tmp_path / "other"
    assert printed(other, "image", "load", stdin=saved) == "Loaded image: localhost/hello:1\n"
    imported = printed(other, "image", "import", "-c", "CMD run", "-", "tree:1", stdin=saved)
    assert imported == "Imported image: localhost/tree:1\n"
    assert printed(other, "image", "history", "-q", "tree:1") == "firkin image import\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["image", "inspect", "absent"],
        ["image", "load", "/nonexistent"],
        ["image", "tag", "busybox", "Bad Name"],
        ["image", "rm"],
        ["image", "ls", "--format", "xml"],
        ["image", "cat", "busybox", "/absent"],
        ["login", "127.0.0.1:1"],
        ["pull", "-q", "127.0.0.1:1/x"],
        ["push", "absent"],
    ],
    ids=" ".join,
)
def test_a_failure_is_one_line_and_125(tmp_path: Path, arguments: list[str]) -> None:
    ended = firkin(tmp_path / "home", *arguments)
    assert ended.returncode == 125
    assert ended.stdout == b""
    lines = ended.stderr.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("firkin: ")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("guarded")
    hashed = subprocess.run(["htpasswd", "-nbB", "someone", "secret"], capture_output=True, text=True, check=True)
    (folder / "htpasswd").write_text(hashed.stdout)
    with docker_registry(folder, auth=f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}") as running:
        yield running


def test_login_push_pull_and_logout(guarded: Registry, tmp_path: Path, layout: Path) -> None:
    home, host = tmp_path / "home", guarded.host
    printed(home, "image", "load", layout)
    assert b"firkin image login" in firkin(home, "push", "-q", "hello:1", f"{host}/hello:1").stderr
    wrong = firkin(home, "login", "-u", "someone", "--password-stdin", host, stdin=b"wrong\n")
    assert wrong.returncode == 125
    assert printed(home, "login", "-u", "someone", "--password-stdin", host, stdin=b"secret\n").startswith("Logged in")
    pushed = printed(home, "push", "-q", "hello:1", f"{host}/hello:1").strip()
    progress = firkin(home, "pull", "--progress", "json", f"{host}/hello:1")
    assert progress.stdout.decode().strip() == f"{host}/hello:1: {pushed}"
    events = [json.loads(line)["event"] for line in progress.stderr.decode().splitlines()]
    assert events.count("finished") == 2
    plain = firkin(home, "pull", "--progress", "plain", f"{host}/hello:1")
    assert plain.stdout.decode().strip() == f"{host}/hello:1: {pushed} (unchanged)"
    assert plain.stderr == b""
    assert printed(home, "logout", host) == f"Logged out of {host}\n"
    assert printed(home, "image", "logout", host) == f"Not logged in to {host}\n"
    assert firkin(home, "pull", f"{host}/hello:1").returncode == 125
