"""A further process: its own options over the container's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.core.exec_config import ExecConfig
from firkin.core.lowering import SeccompProgram, lower
from firkin.core.option_inputs import container_options
from firkin.core.spec import RuntimeSpec
from firkin.errors import InvalidInputError
from firkin.oci.config import ImageConfig
from firkin.types import Capability, ContainerId, LinuxCapabilities, ProcessId, PtySize, Rlimit, Stdio, User

ID = ContainerId("unit")


def container(**inputs: Any) -> RuntimeSpec:
    image = ImageConfig(env=("PATH=/bin", "A=image"), cmd=("x",), user="app", working_dir="/srv")
    filtered = SeccompProgram(bytes(8))
    return lower(container_options((), **inputs), image, container_id=ID, seccomp=filtered)


def test_exec_config_generates_process_spec_for_existing_container() -> None:
    spec = ExecConfig.of(["/bin/echo", "exec"], env={"A": "B"}, working_dir="/tmp").runtime_spec(ID)
    assert spec.process.args == ("/bin/echo", "exec")
    assert spec.process.env == ("A=B",)
    assert spec.process.cwd == "/tmp"
    assert spec.root is not None
    assert spec.root.path == "/run/container/unit/rootfs"
    assert spec.hostname == "unit"


def test_exec_config_preserves_process_policy_knobs() -> None:
    config = ExecConfig.of(
        ["/bin/echo", "exec"],
        no_new_privileges=True,
        capabilities=LinuxCapabilities.single_set([Capability.CHOWN]),
        rlimits=[Rlimit("nofile", 1024, 2048)],
        selinux_label="system_u:system_r:container_t:s0",
        apparmor_profile="firkin-profile",
    )
    process = json.loads(config.runtime_spec(ID).to_json())["process"]
    assert process["noNewPrivileges"] is True
    assert process["capabilities"]["effective"] == ["CAP_CHOWN"]
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2048}]
    assert process["selinuxLabel"] == "system_u:system_r:container_t:s0"
    assert process["apparmorProfile"] == "firkin-profile"


def test_process_id_inputs_are_validated_before_exec() -> None:
    with pytest.raises(InvalidInputError, match="forbidden characters"):
        ProcessId("bad/id")


def test_what_is_unset_is_the_containers() -> None:
    base = container(
        cap_drop=["CHOWN"],
        rlimits=["nofile=5", "core=0"],
        no_new_privileges=True,
        oom_score_adj=7,
        group_add=["audio", 9],
        selinux_label="l",
        env={"HOME": "/h"},
    )
    spec = ExecConfig.of(["y"]).runtime_spec(ID, base)
    assert spec.process == base.process._replace(args=("y",))
    assert spec.hostname == base.hostname
    assert dict(spec.annotations) == {key: base.annotations[key] for key in spec.annotations}
    assert {"dev.firkin.seccomp.bpf", "dev.firkin.group_add"} <= set(spec.annotations)


def test_what_is_set_wins_field_by_field() -> None:
    base = container(rlimits=["nofile=5", "core=0"], no_new_privileges=True, group_add=["audio"])
    config = ExecConfig.of(
        ["y"],
        env={"A": None, "B": "2"},
        user="7:8",
        working_dir="/w",
        rlimits=["nofile=6"],
        no_new_privileges=False,
        cap_add=["NET_ADMIN"],
        terminal=True,
        pty_size=PtySize(10, 5),
    )
    spec = config.runtime_spec(ID, base, seccomp=SeccompProgram(bytes(16), 1))
    process = spec.process
    assert process.env == ("PATH=/bin", "HOSTNAME=unit", "B=2", "TERM=xterm")
    assert (process.user.uid, process.user.gid, process.user.username) == (7, 8, "")
    assert process.cwd == "/w"
    assert process.rlimits == (Rlimit("core", 0), Rlimit("nofile", 6))
    assert not process.no_new_privileges
    assert process.capabilities is not None
    assert Capability.NET_ADMIN in process.capabilities.bounding
    assert process.console_size == (5, 10)
    assert spec.annotations["dev.firkin.seccomp.flags"] == "1"
    assert "dev.firkin.group_add" not in spec.annotations


def test_privileged_lifts_the_containers_limits_of_capabilities() -> None:
    spec = ExecConfig.of(["y"], privileged=True).runtime_spec(ID, container(cap_drop=["ALL"]))
    assert spec.process.capabilities == LinuxCapabilities.all()


def test_groups_are_added_to_the_containers_user() -> None:
    spec = ExecConfig.of(["y"], group_add=["video", "5"]).runtime_spec(ID, container(group_add=["audio", 9]))
    assert spec.process.user.username == "app"
    assert spec.process.user.additional_gids == (9, 5)
    assert spec.annotations["dev.firkin.group_add"] == "audio,video"


CONFIGS = st.builds(
    ExecConfig,
    command=st.lists(st.text("ab ", min_size=1), min_size=1, max_size=3).map(tuple),
    env=st.dictionaries(st.text("AB", min_size=1), st.one_of(st.none(), st.text())).map(
        lambda env: tuple((name, value and value.replace("\0", "")) for name, value in env.items())
    ),
    user=st.sampled_from([None, User("a"), User("1", "2")]),
    group_add=st.sampled_from([(), ("a", "1")]),
    capabilities=st.sampled_from([None, LinuxCapabilities.empty(), LinuxCapabilities.single_set(["KILL"])]),
    rlimits=st.sampled_from([(), (Rlimit("nofile", 1, 2),)]),
    no_new_privileges=st.sampled_from([None, True, False]),
    oom_score_adj=st.sampled_from([None, 0, -5]),
    terminal=st.booleans(),
    pty_size=st.builds(PtySize, st.integers(1, 999), st.integers(1, 999)),
    stdin=st.sampled_from(list(Stdio)),
)


@given(CONFIGS)
def test_a_config_comes_back_from_its_json(config: ExecConfig) -> None:
    assert ExecConfig.from_json(config.to_json()) == config


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)
FIELDS = st.sampled_from(
    ["command", "env", "user", "capabilities", "rlimits", "terminal", "stdin", "pty_size", "working_dir", "x"]
)


@given(st.one_of(st.text(max_size=20), st.dictionaries(FIELDS, JSON).map(json.dumps), JSON.map(json.dumps)))
def test_other_json_is_refused_by_name(text: str) -> None:
    try:
        config = ExecConfig.from_json(text)
    except InvalidInputError:
        return
    assert ExecConfig.from_json(config.to_json()) == config


def test_a_process_needs_a_program() -> None:
    with pytest.raises(InvalidInputError, match="no command"):
        ExecConfig.of([])
