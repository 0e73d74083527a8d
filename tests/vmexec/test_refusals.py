"""What vmexec refuses, with the stage named, and what an image can't make it do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.vmexec.driver import Vmexec, finish
from tests.vmexec.specs import base, changed, mount

RUN = ["run", "--id", "test"]
BAD = [
    ("ociVersion", "2.0.0", "spec"),
    ("root.path", "relative", "spec"),
    ("process.args", [], "spec"),
    ("process.cwd", "relative", "spec"),
    ("process.args", ["a\0b"], "spec"),
    ("process.capabilities.bounding", ["CAP_WHAT"], "capabilities"),
    ("process.rlimits", [{"type": "RLIMIT_WHAT", "soft": 1, "hard": 1}], "rlimits"),
    ("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}], "rlimits"),
    ("process.user", {"username": "nobody-here"}, "user"),
    ("process.user", {"username": "ann:nogroup"}, "user"),
    ("process.user", {"uid": -1}, "spec"),
    ("process.oomScoreAdj", 5000, "oom_score_adj"),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_WHAT"}, "ioPriority"),
    ("process.scheduler", {"policy": "SCHED_WHAT"}, "scheduler"),
    ("process.selinuxLabel", "a:b:c", "selinux"),
    ("process.cwd", "/etc/passwd/x", "cwd"),
    ("hooks", {"prestart": [{"path": "/x"}]}, "spec"),
    ("linux.intelRdt", {}, "spec"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW"}, "spec"),
    ("linux.namespaces", [{"type": "pid"}], "namespaces"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "user"}], "namespaces"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "uts"}, {"type": "ipc", "path": "/none"}], "namespaces"),
    ("linux.namespaces", [{"type": "mount"}], "hostname"),
    ("linux.personality", {"domain": "WHAT"}, "personality"),
    ("linux.rootfsPropagation", "what", "root"),
    ("linux.cgroupsPath", "/../up", "cgroup"),
    ("linux.sysctl", {"kernel.nothing": "1"}, "sysctl"),
    ("linux.sysctl", {"../../etc/passwd": "1"}, "sysctl"),
    ("linux.devices", [{"path": "/dev/x", "type": "z"}], "devices"),
    ("annotations", {"dev.firkin.seccomp.bpf": "???"}, "seccomp"),
    ("annotations", {"dev.firkin.group_add": "nogroup"}, "user"),
]


@pytest.mark.parametrize(("path", "value", "stage"), BAD, ids=[f"{path}={value}" for path, value, _ in BAD])
def test_a_bad_field(vmexec: Vmexec, root: Path, path: str, value: Any, stage: str) -> None:
    failed = vmexec.run(changed(base(root, "true"), path, value)).error
    assert failed is not None
    assert (failed["stage"], failed["exit_code"]) == (stage, 125)
    assert failed["errno"] > 0
    assert "\n" not in failed["message"]


@pytest.mark.parametrize(
    "entry",
    [
        mount("/", "tmpfs", "x"),
        mount("/..", "tmpfs", "x"),
        mount("/mnt", "tmpfs", "x", "idmap"),
        mount("/mnt", "tmpfs", "x", "size=what"),
        mount("/mnt", "tmpfs", "x", "x" * 5000),
        mount("/mnt", "bind", "relative", "bind"),
        mount("/mnt", "bind", "/none", "bind"),
        mount("/etc/passwd", "tmpfs", "x"),
        mount("/mnt", "nofs", "x"),
        mount("/mnt", "tmpfs", "x", "remount"),
        mount("/mnt", "tmpfs", "x") | {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]},
    ],
    ids=lambda entry: f"{entry['destination']} {entry['type']} {entry['source']} {str(entry['options'])[:20]}",
)
def test_a_bad_mount(vmexec: Vmexec, root: Path, entry: dict[str, Any]) -> None:
    spec = base(root, "true")
    failed = vmexec.run(changed(spec, "mounts", [*spec["mounts"], entry])).error
    assert failed is not None
    assert (failed["stage"], failed["exit_code"]) == ("mount", 125)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff" * 100, b'{"process":{"args":"x"}}', b"[" * 100_000])
def test_no_specification(vmexec: Vmexec, content: bytes) -> None:
    failed = vmexec.start(RUN, content).error
    assert failed is not None
    assert (failed["stage"], failed["exit_code"]) == ("spec", 125)


def test_a_specification_without_end(vmexec: Vmexec) -> None:
    failed = vmexec.start(RUN, b" " * (9 << 20)).error
    assert failed is not None
    assert (failed["stage"], failed["errno"]) == ("spec", 27)


def test_a_failure_of_any_length_is_told(vmexec: Vmexec, root: Path) -> None:
    failed = vmexec.run(changed(base(root, "true"), "process.user", {"username": "u" * 100_000})).error
    assert failed is not None
    assert (failed["stage"], failed["exit_code"]) == ("user", 125)


@pytest.mark.parametrize("kind", ["proc", "sysfs"])
def test_an_image_cannot_lead_proc_away(vmexec: Vmexec, root: Path, kind: str) -> None:
    """What is masked by path later must be what was mounted."""
    folder = {"proc": "proc", "sysfs": "sys"}[kind]
    (root / folder).symlink_to("/tmp")
    failed = vmexec.run(base(root, "true")).error
    assert failed is not None
    assert failed["message"] == f"make /{folder}: Too many levels of symbolic links"


def test_an_image_cannot_lead_mounts_out(vmexec: Vmexec, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "up").symlink_to("../" * 20 + str(outside).lstrip("/"))
    (root / "absolute").symlink_to(outside)
    entries = [mount(f"/{name}/x", "tmpfs", "x") for name in ("up", "absolute")]
    spec = base(root, "sh", "-c", "grep -c ' tmpfs x ' /proc/self/mountinfo")
    assert finish(vmexec.run, changed(spec, "mounts", [*spec["mounts"], *entries])).output == "2\n"
    assert list(outside.iterdir()) == []
    assert (root / str(outside).lstrip("/") / "x").is_dir()


def test_an_images_own_null_device_is_replaced(vmexec: Vmexec, root: Path) -> None:
    (root / "dev").mkdir()
    (root / "dev/null").symlink_to("/etc/passwd")
    spec = changed(
        base(root, "sh", "-c", "test -c /dev/null && cat /etc/group"), "mounts", [mount("/proc", "proc", "proc")]
    )
    spec = changed(spec, "linux.maskedPaths", ["/etc/group"])
    assert finish(vmexec.run, spec).output == ""


def test_a_passwd_that_is_a_fifo_holds_nobody_up(vmexec: Vmexec, root: Path) -> None:
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")
    done = finish(
        vmexec.run, changed(base(root, "grep", "Uid", "/proc/self/status"), "process.user", {"username": "77"})
    )
    assert done.output == "Uid:\t77\t77\t77\t77\n"


@pytest.mark.parametrize("number", range(3, 12))
def test_no_descriptor_leads_out(vmexec: Vmexec, root: Path, number: int) -> None:
    """CVE-2024-21626: a working directory, or a program, by what the runtime has open."""
    for path, value in (
        ("process.cwd", f"/proc/self/fd/{number}"),
        ("process.args", [f"/proc/self/fd/{number}/bin/true"]),
        ("process.args", [f"/proc/self/fd/{number}"]),
    ):
        failed = vmexec.run(changed(base(root, "true"), path, value)).error
        assert failed is not None
        assert failed["stage"] in ("cwd", "exec")
