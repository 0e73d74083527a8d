"""Tables, JSON and templates; what a shell completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import firkin
from firkin.cli.main import run
from firkin.cli.output import print_documents, print_one, print_rows, render
from firkin.oci import Image

ROWS = [{"id": "a", "size": 1, "tags": ["x"], "note": None, "in": {"Depth": 2}, "on": True}]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.id}} {{ .ID }}", "a a"),
        (r"{{.size}}\t{{.tags}}\n", '1\t["x"]\n'),
        ("{{json .tags}} {{json .id}} {{.note}} {{.on}}", '["x"] "a" null true'),
        ("{{.in.depth}}%", "2%"),
        ("{{json .}}", json.dumps(ROWS[0])),
    ],
)
def test_a_template_takes_values_of_the_json(template: str, text: str) -> None:
    assert render(template, ROWS[0]) == text


def test_a_wrong_key_names_the_right_ones() -> None:
    with pytest.raises(click.BadParameter, match=r"there is no \.nosuch; there are id, in, note, on, size, tags"):
        render("{{.nosuch}}", ROWS[0])
    with pytest.raises(click.BadParameter):
        render("{{.id.deeper}}", ROWS[0])


def test_json_and_templates_have_the_documents_tables_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "shortened…"}]
    print_rows(rows, {"id": "NAME"}, "table", ROWS)
    print_rows(rows, {"id": "NAME"}, "json", ROWS)
    print_rows(rows, {"id": "NAME"}, "<{{.id}}>", ROWS)
    assert capsys.readouterr().out == f"NAME\nshortened…\n{json.dumps(ROWS)}\n<a>\n"


LISTS = "ps, image ls, images, volume ls, snapshot ls, doctor, stats, version, image prune, history x, port x"
LISTS += ", snapshot create x y, image warm x"


@pytest.mark.parametrize("command", LISTS.split(", "))
def test_every_list_takes_the_same_formats(home: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = command.split(" ")
    words = [*command.split(" ")[:2], "--format", "yaml", *rest[1:]] if rest else [first, "--format", "yaml"]
    assert run(words) == 125
    assert "'yaml' is none of table, json and a template as '{{.id}} {{.image}}'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "image inspect", "volume inspect", "snapshot inspect"])
def test_what_is_json_takes_a_template(home: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--format", "table", "x"]) == 125
    assert "'table' is neither json nor a template as '{{.id}} {{.image}}'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ps", "ps -a", "image ls", "images", "volume ls", "snapshot ls"])
def test_every_list_can_be_quiet(fresh_home: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_documents_and_single_things(capsys: pytest.CaptureFixture[str]) -> None:
    print_documents(ROWS, "json")
    assert json.loads(capsys.readouterr().out) == ROWS
    print_documents(ROWS, "<{{.id}}>")
    for form in ("table", "json", "{{.size}}"):
        print_one(ROWS[0], form, "for people")
    assert capsys.readouterr().out == f"<a>\nfor people\n{json.dumps(ROWS[0])}\n1\n"


def test_an_image_by_a_template(home: Path, busybox_image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["image", "inspect", "--format", "{{.digest}} {{.config.Nosuch}}", "busybox"]) == 125
    assert "there is no .config.Nosuch" in capsys.readouterr().err
    assert run(["image", "inspect", "--format", "{{.digest}}", "busybox"]) == 0
    assert capsys.readouterr().out == f"{busybox_image.digest}\n"
    assert run(["version", "--format", "{{.firkin}}"]) == 0
    assert capsys.readouterr().out == f"{firkin.__version__}\n"


def test_causes_are_told_to_who_asks_before_the_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-v` behind the command is the command's own: `run -v` mounts."""
    wrong = ["run", "-v", "/no/such/folder:/x", "busybox", "true"]
    for words, causes in [(wrong, 0), (["-v", *wrong], 1), (["-vvv", *wrong], 1)]:
        assert run(words) == 125
        first, *more = capsys.readouterr().err.splitlines()
        assert first == "firkin: there is nothing to mount at /no/such/folder (create it first)"
        assert len([line for line in more if line.startswith("  because:")]) == causes


def test_images_by_a_template(home: Path, busybox_image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["images", "--format", "{{.reference}}"]) == 0
    assert "localhost/busybox:latest" in capsys.readouterr().out.splitlines()


def completions(*words: str) -> list[str]:
    environ = {"_FIRKIN_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", "from firkin.cli import main; main()"]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=True)
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_a_shell_completes_commands_options_and_names(home: Path, busybox_image: Image) -> None:
    assert {"stats", "stop"} <= set(completions("firkin", "st"))
    assert completions("firkin", "run", "--entry") == ["--entrypoint"]
    assert "busybox" in completions("firkin", "run", "bus")
    assert "localhost/busybox:latest" in completions("firkin", "image", "rm", "localhost/busy")
    folder = home / "run/vm/box-for-the-shell"
    folder.mkdir(parents=True)
    try:
        assert completions("firkin", "stop", "box-for") == [], "its owner is dead"
    finally:
        assert not folder.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_FIRKIN_COMPLETE={shell}_complete" in script
    assert "firkin" in script
