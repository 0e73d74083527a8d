"""What `firkin doctor` looks at, and that whatever is missing has a way to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.cli.main import run
from firkin.core.doctor import Finding, examine
from firkin.types import StateDirs

LOOKED_AT = {
    *("kernel", "qemu", "accelerator", "confinement", "virtiofsd", "network", "cpus", "memory", "user", "busybox"),
    *("libseccomp", "cgroup", "data", "cache", "run"),
}


def found(home: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(StateDirs.under(home))}


def test_everything_is_looked_at_and_what_is_missing_has_a_fix(home: Path) -> None:
    findings = found(home)
    assert findings.keys() >= LOOKED_AT
    assert any(name.startswith("emulator ") for name in findings)
    assert [each.name for each in findings.values() if each.verdict != "ok" and not each.fix] == []
    assert [each for each in findings.values() if each.verdict == "broken"] == []


def test_without_programs_each_is_named_with_its_package(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    findings = found(home)
    assert (findings["qemu"].verdict, findings["qemu"].fix) == ("broken", "apt install qemu-system-x86")
    assert (findings["busybox"].verdict, findings["busybox"].fix) == ("missing", "apt install busybox-static")
    emulators = [each for name, each in findings.items() if name.startswith("emulator ")]
    assert {each.fix for each in emulators} == {"apt install qemu-user-static"}


def test_without_a_kernel_setup_is_the_fix(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRKIN_KERNEL", "/nonexistent")
    assert found(home)["kernel"].verdict == "broken"
    assert run(["doctor"]) == 1


@pytest.mark.parametrize(("options", "verdict"), [("size=64k", "missing"), ("ro", "broken")])
def test_a_full_disk_and_one_that_can_not_be_written_are_findings(tmp_path: Path, options: str, verdict: str) -> None:
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && FIRKIN_HOME=$2/home exec "$3" -m firkin "$4"'
    found = []
    for command in ("doctor", "ps", "setup"):
        sandbox = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh"]
        words = [options, str(tmp_path), sys.executable, command]
        found.append(subprocess.run([*sandbox, *words], capture_output=True, text=True, timeout=60))
    doctor, ps, setup = found
    rows = {line.split()[0]: line for line in doctor.stdout.splitlines()}
    assert (doctor.returncode, doctor.stderr) == (1, "")
    assert " broken " in rows["kernel"]
    assert all(f" {verdict} " in rows[name] for name in ("data", "cache", "run"))
    assert (ps.returncode, ps.stderr) == (0, "")
    assert "Traceback" not in setup.stderr
    assert setup.returncode in (1, 125)


def test_without_a_route_or_root_the_rest_still_works(home: Path) -> None:
    words = ["unshare", "--net", "--map-user=4242", sys.executable, "-m", "firkin", "doctor", "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert (rows["network"]["verdict"], rows["network"]["fix"]) == (
        "missing",
        "containers reach what --allow-net names",
    )
    assert rows["user"]["detail"].startswith("user 4242, without")
    assert rows["cgroup"]["detail"]


def test_the_json_is_a_list_of_findings(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"name", "verdict", "detail", "fix"} == set().union(*document)
    assert {each["name"] for each in document} >= LOOKED_AT
