"""Tables, JSON and templates; what a shell completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from firkin.cli.main import run
from firkin.cli.output import print_rows, render
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


@pytest.mark.parametrize("command", [["ps"], ["image", "ls"], ["images"], ["volume", "ls"], ["doctor"], ["stats"]])
def test_every_list_takes_the_same_formats(home: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--format", "yaml"]) == 125
    assert "'yaml' is none of table, json and a template as '{{.id}} {{.image}}'" in capsys.readouterr().err


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
