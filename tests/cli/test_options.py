"""The options of `run`, `create` and `exec`: Docker's flags to checked options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from firkin.cli.options import container_flags, inputs_from, process_flags, read_env
from firkin.core.exec_config import ExecConfig
from firkin.core.lowering import lower
from firkin.core.mount import Mount
from firkin.core.name_service import DnsConfig, HostsEntry
from firkin.core.option_inputs import container_options
from firkin.core.options import ContainerOptions
from firkin.core.publication import PortPublication
from firkin.core.seccomp import Seccomp
from firkin.core.socket_relay import SocketRelay
from firkin.errors import InvalidInputError
from firkin.network.policy import Policy
from firkin.oci.config import ImageConfig
from firkin.types import ContainerId, GuestPath, Platform, Rlimit, Size, Stdio, User


@click.command()
@container_flags
@click.pass_obj
def run(made: list[Any], **flags: Any) -> None:
    made.append(container_options(("x",), **inputs_from(flags)))


@click.command("exec")
@process_flags
@click.pass_obj
def exec_(made: list[Any], **flags: Any) -> None:
    made.append(ExecConfig.of(("x",), **inputs_from(flags)))


def invoke(command: click.Command, *args: str) -> Any:
    made: list[Any] = []
    result = CliRunner().invoke(command, args, obj=made, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return made[0]


def options(*args: str) -> ContainerOptions:
    found: ContainerOptions = invoke(run, *args)
    return found


def test_no_flag_is_the_default() -> None:
    assert options() == container_options(("x",), stdout=Stdio.INHERIT, stderr=Stdio.INHERIT)


FLAGS: list[tuple[tuple[str, ...], str, object]] = [
    (("-i",), "stdin", Stdio.INHERIT),
    (("-t",), "terminal", True),
    (("-w", "/w"), "working_dir", "/w"),
    (("-u", "a:b"), "user", User("a", "b")),
    (("--group-add", "a", "--group-add", "5"), "group_add", ("a", "5")),
    (("--privileged",), "privileged", True),
    (("--cap-add", "NET_ADMIN"), "cap_add", ("NET_ADMIN",)),
    (("--cap-drop", "ALL"), "cap_drop", ("ALL",)),
    (("--ulimit", "nofile=5:6"), "rlimits", (Rlimit("nofile", 5, 6),)),
    (("--oom-score-adj", "0"), "oom_score_adj", 0),
    (("--entrypoint", ""), "entrypoint", ()),
    (("--entrypoint", "/e"), "entrypoint", ("/e",)),
    (("--pull", "always"), "pull", "always"),
    (("--platform", "arm/v7"), "platform", Platform("arm", "v7")),
    (("--hostname", "h"), "hostname", "h"),
    (("--init",), "use_init", True),
    (("-l", "a=b", "-l", "c"), "labels", {"a": "b", "c": ""}),
    (("--stop-signal", "INT"), "stop_signal", 2),
    (("--stop-timeout", "0"), "stop_timeout", 0.0),
    (("--security-opt", "no-new-privileges"), "no_new_privileges", True),
    (("--security-opt", "seccomp=unconfined"), "seccomp", "unconfined"),
    (("--security-opt", "apparmor=p"), "apparmor_profile", "p"),
    (("--security-opt", "label=type:t"), "selinux_label", "system_u:system_r:t:s0"),
    (("--security-opt", "systempaths=unconfined"), "masked_paths", ()),
    (("--sysctl", "net.ipv4.ip_forward=1"), "sysctl", {"net.ipv4.ip_forward": "1"}),
    (("--read-only",), "read_only", True),
    (
        ("-v", "d:/d:ro", "--mount", "dst=/e"),
        "mounts",
        (Mount.volume("d", "/d", read_only=True), Mount.volume("", "/e")),
    ),
    (("--tmpfs", "/t"), "mounts", (Mount.tmpfs("/t"),)),
    (("--shm-size", "1m"), "shm_size", Size.mib(1)),
    (("--pids-limit", "7"), "pids_limit", 7),
    (("--pids-limit", "-1"), "pids_limit", None),
    (("--device-read-bps", "/dev/sda:1m"), "read_bps", Size.mib(1)),
    (("--write-bps", "2m"), "write_bps", Size.mib(2)),
    (("--device-read-iops", "/dev/sda:30"), "read_iops", 30),
    (("--write-iops", "40"), "write_iops", 40),
    (("--device-write-bps", "1m"), "write_bps", Size.mib(1)),
    (("--device-write-iops", "/dev/a:b:4"), "write_iops", 4),
    (("--cpus", "1.5"), "cpus", 1.5),
    (("-m", "1g"), "memory", Size.gib(1)),
    (("--disk", "2g"), "disk", Size.gib(2)),
    (("--writable-layer", "/l"), "writable_layer", Path("/l")),
    (("--network", "none"), "network", "none"),
    (("-p", "8080:80"), "publish", (PortPublication(80, 8080),)),
    (("--dns", "1.1.1.1", "--dns-option", "ndots:2"), "dns", DnsConfig(("1.1.1.1",), None, (), ("ndots:2",))),
    (("--add-host", "a:1.2.3.4"), "hosts", (HostsEntry("1.2.3.4", ("a",)),)),
    (("--mac-address", "02:00:00:00:00:01"), "mac_address", "02:00:00:00:00:01"),
    (("--mtu", "1500"), "mtu", 1500),
    (("--allow-net", "10.0.0.0/8:80"), "policy", Policy.of(allow_net=["10.0.0.0/8:80"])),
    (("--deny-net", "all"), "policy", Policy.of(deny_net=["all"])),
    (("--allow-domain", "*.a.example"), "policy", Policy.of(allow_domain=["*.a.example"])),
    (("--socket", "/h:/g"), "sockets", (SocketRelay(Path("/h"), GuestPath("/g"), True),)),
    (("--publish-socket", "/g:/h"), "sockets", (SocketRelay(Path("/h"), GuestPath("/g"), False),)),
    (("--no-emulate",), "emulate", False),
    (("--emulate",), "emulate", True),
    (("--nested",), "nested", True),
    (("--kernel", "/k"), "kernel", Path("/k")),
    (("--kernel-arg", "a", "--kernel-arg", "b=1"), "cmdline_extra", ("a", "b=1")),
    (("--boot-log", "/b"), "boot_log", Path("/b")),
    (("--cpu-model", "max"), "cpu_model", "max"),
    (("--accel", "tcg"), "accel", "tcg"),
    (("--no-fork",), "fork", False),
    (("--warm",), "warm", True),
]


@pytest.mark.parametrize(("args", "field", "value"), FLAGS, ids=lambda part: part if isinstance(part, str) else None)
def test_each_flag_sets_its_option(args: tuple[str, ...], field: str, value: object) -> None:
    assert getattr(options(*args), field) == value


def test_every_flag_is_in_the_table() -> None:
    tried = {arg for args, _, _ in FLAGS for arg in args if arg.startswith("-")}
    tried |= {"-e", "--env-file", "--label-file", "--dns-search", "--cpu-quota", "--cpu-period", "--expose"}
    untried = [param.opts for param in run.params if not tried & {*param.opts, *param.secondary_opts}]
    assert untried == []


ORDERED = """--init --cap-add=BPF --cap-add=KILL --cap-drop=CHOWN -eA=1 -eB=2 --read-only --cpus=1.5 -va:/x/y -vb:/x
-vc:/z
--ulimit=nofile=5 --ulimit=core=0 --group-add=z --group-add=7 --group-add=a --tmpfs=/y -la=1 -lb=2 --sysctl=a.b=1
--sysctl=a.c=2 --user=me --workdir=/w --entrypoint=/e --stop-signal=INT --hostname=h --pids-limit=5 --oom-score-adj=3
--security-opt=no-new-privileges --security-opt=label=type:t --security-opt=label=level:s1 --shm-size=1m -t -i"""


@settings(max_examples=25, deadline=None)
@given(st.permutations(ORDERED.split()))
def test_the_order_of_flags_makes_no_difference(flags: list[str]) -> None:
    image = ImageConfig(env=("B=image", "C=image"), labels={"b": "image"})
    spec = lower(options(*flags), image, container_id=ContainerId("a"))
    assert spec == lower(options(*ORDERED.split()), image, container_id=ContainerId("a"))


def test_a_profile_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert isinstance(options("--security-opt", f"seccomp={file}").seccomp, Seccomp)


def test_exec_has_the_flags_of_a_process() -> None:
    config = invoke(exec_, "-it", "-u", "1", "-w", "/w", "-e", "A=1", "--privileged")
    assert (config.terminal, config.user, config.working_dir, config.privileged) == (True, User("1"), "/w", True)
    assert (config.stdin, config.stdout, config.env) == (Stdio.INHERIT, Stdio.INHERIT, (("A", "1"),))


def test_variables_come_from_files_then_flags_and_from_here(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes('\ufeff# comment\n\nA=file\r\n  B= spaced = "kept" \nHERE\nNOT_HERE\n'.encode())
    found = read_env([str(file)], ["A=flag", "C=", "GONE"], {"HERE": "yes"})
    assert found == {"A": "flag", "B": ' spaced = "kept" ', "HERE": "yes", "NOT_HERE": None, "C": "", "GONE": None}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"A B=1", "names no environment variable"),
        (b"=1", "names no"),
        (b"\xff", "not UTF-8"),
        (b"#" * (1 << 20 | 1), "too long"),
    ],
)
def test_wrong_files(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match=says):
        read_env([str(file)], [])
    with pytest.raises(InvalidInputError, match="can't be read"):
        read_env([str(tmp_path / "none")], [])


def test_labels_come_from_files_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("a=file\nb=file\n# c=no\n")
    assert options("--label-file", str(file), "-l", "b=flag").labels == {"a": "file", "b": "flag"}


@pytest.mark.parametrize(
    "args",
    [
        ("-e", "=x"),
        ("-l", "=x"),
        ("--sysctl", "a.b"),
        ("--security-opt", "x"),
        ("-v", ":"),
        ("--dns", "x"),
        ("--socket", "x"),
    ],
)
def test_wrong_values(args: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError):
        options(*args)
