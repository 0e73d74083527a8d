"""Options and an image's config to a runtime specification: field by field, and whatever the order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.core.lowering import DEFAULT_PATH, SeccompProgram, by_depth, lower, merge_env, resolve_stop_signal
from firkin.core.option_inputs import container_options
from firkin.core.policy import MASKED_PATHS, READONLY_PATHS
from firkin.core.spec import Process, RuntimeSpec, SpecMount
from firkin.errors import ImageError, InvalidInputError
from firkin.oci.config import ImageConfig
from firkin.types import Capability, ContainerId, LinuxCapabilities, User

ID = ContainerId("unit")
IMAGE = ImageConfig(
    env=("PATH=/bin", "A=image", "B=image"),
    entrypoint=("/entry",),
    cmd=("default",),
    user="app",
    working_dir="/srv",
    stop_signal="SIGQUIT",
    labels={"a": "image", "b": "image"},
)


def lowered(command: list[str] | None = None, image: ImageConfig = IMAGE, **inputs: Any) -> RuntimeSpec:
    return lower(container_options(command or (), **inputs), image, container_id=ID)


def process(command: list[str] | None = None, image: ImageConfig = IMAGE, **inputs: Any) -> Process:
    return lowered(command, image, **inputs).process


@pytest.mark.parametrize(
    ("entrypoint", "command", "args"),
    [
        (None, [], ("/entry", "default")),
        (None, ["x"], ("/entry", "x")),
        ("/other", [], ("/other",)),
        ("/other", ["x"], ("/other", "x")),
        (["/other", "-v"], ["x"], ("/other", "-v", "x")),
        ("", ["x"], ("x",)),
        ([], ["x", "y"], ("x", "y")),
    ],
)
def test_entrypoint_and_command_merge_as_docker_does(
    entrypoint: Any, command: list[str], args: tuple[str, ...]
) -> None:
    assert process(command, entrypoint=entrypoint).args == args


@pytest.mark.parametrize(("image", "inputs"), [(ImageConfig(), {}), (IMAGE, {"entrypoint": ""})])
def test_no_program_at_all_is_an_error(image: ImageConfig, inputs: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="no command"):
        lowered([], image, **inputs)


def test_the_environment_merges_by_name() -> None:
    env = process(env={"B": "mine", "C": "new", "A": None}).env
    assert env == ("PATH=/bin", "HOSTNAME=unit", "B=mine", "C=new")


def test_path_has_a_default_and_a_terminal_its_type() -> None:
    bare = ImageConfig(cmd=("x",))
    assert f"PATH={DEFAULT_PATH}" in process(image=bare).env
    assert "TERM=xterm" in process(image=bare, terminal=True).env
    assert "TERM=vt100" in process(image=bare, terminal=True, env=["TERM=vt100"]).env
    assert not any(entry.startswith("TERM=") for entry in process(image=bare).env)


NAMES = st.text("ABCDEFG_", min_size=1, max_size=3)
ENV = st.dictionaries(NAMES, st.one_of(st.none(), st.text("xyz= ", max_size=4)), max_size=6)


@given(st.lists(st.tuples(NAMES, st.text("xyz", max_size=3)), max_size=6), ENV, st.randoms())
def test_the_order_of_variables_makes_no_difference(
    base: list[tuple[str, str]], env: dict[str, str | None], random: Any
) -> None:
    shuffled = list(env.items())
    random.shuffle(shuffled)
    entries = [f"{name}={value}" for name, value in base]
    merged = merge_env(entries, env.items())
    assert list(merge_env(entries, shuffled).items()) == list(merged.items())
    wanted = dict(base) | {name: value for name, value in env.items() if value is not None}
    assert merged == {name: value for name, value in wanted.items() if env.get(name, "") is not None}


def test_what_sets_nothing_in_an_image_is_skipped() -> None:
    assert merge_env(["A", "=x", "B=1"], []) == {"B": "1"}


@pytest.mark.parametrize(
    ("image_user", "user", "username", "ids"),
    [
        ("", None, "0", (0, 0)),
        ("app", None, "app", (0, 0)),
        ("app:adm", None, "app:adm", (0, 0)),
        ("1000", None, "1000", (0, 0)),
        ("1000:1000", None, "", (1000, 1000)),
        ("app", "7:8", "", (7, 8)),
        ("app", "7", "7", (0, 0)),
        (":5", None, ":5", (0, 0)),
    ],
)
def test_users_are_resolved_in_the_guest(
    image_user: str, user: str | None, username: str, ids: tuple[int, int]
) -> None:
    found = process(["x"], ImageConfig(user=image_user), user=user).user
    assert (found.username, (found.uid, found.gid)) == (username, ids)


def test_groups_are_numbers_or_an_annotation() -> None:
    spec = lowered(user=User("app", groups=("9",)), group_add=["audio", 7, "video"])
    assert spec.process.user.additional_gids == (7, 9)
    assert spec.annotations["dev.firkin.group_add"] == "audio,video"


def test_home_is_looked_up_unless_given() -> None:
    assert lowered().annotations["dev.firkin.env.home"] == "1"
    assert "dev.firkin.env.home" not in lowered(env={"HOME": "/x"}).annotations


@pytest.mark.parametrize(
    ("given", "cwd"), [("", "/"), ("srv", "/srv"), ("/a//b/../c/", "/a/c"), ("//x", "/x"), ("../../x", "/x")]
)
def test_an_images_directory_is_cleaned(given: str, cwd: str) -> None:
    assert process(["x"], ImageConfig(working_dir=given)).cwd == cwd


def test_a_given_directory_wins() -> None:
    assert process(working_dir="/mine").cwd == "/mine"
    assert process().cwd == "/srv"


def test_an_images_mistakes_are_the_images() -> None:
    with pytest.raises(ImageError, match="user 'a b'"):
        lowered(["x"], ImageConfig(user="a b"))
    with pytest.raises(ImageError, match="stop signal 'NOPE'"):
        resolve_stop_signal(container_options(), ImageConfig(stop_signal="NOPE"))


def test_stop_signal_and_labels_are_honoured() -> None:
    assert resolve_stop_signal(container_options(), IMAGE) == 3
    assert resolve_stop_signal(container_options(stop_signal="INT"), IMAGE) == 2
    assert resolve_stop_signal(container_options(), ImageConfig()) == 15
    spec = lowered(labels={"b": "mine", "c": ""})
    assert {key: spec.annotations[key] for key in "abc"} == {"a": "image", "b": "mine", "c": ""}


def test_capabilities_default_to_the_fourteen_and_change_by_name() -> None:
    assert process().capabilities == LinuxCapabilities.default_oci()
    changed = process(cap_add=["net_admin"], cap_drop=["CAP_CHOWN"]).capabilities
    assert changed is not None
    assert Capability.NET_ADMIN in changed.bounding
    assert Capability.CHOWN not in changed.bounding
    assert process(privileged=True, cap_drop=["SYS_BOOT"]).capabilities == LinuxCapabilities.all().changed(
        drop=["SYS_BOOT"]
    )
    assert process(capabilities=LinuxCapabilities.empty(), privileged=True).capabilities == LinuxCapabilities.empty()


def test_paths_are_masked_unless_told_otherwise() -> None:
    assert lowered().linux.masked_paths == MASKED_PATHS
    assert lowered().linux.readonly_paths == READONLY_PATHS
    assert lowered(masked_paths=[], readonly_paths=["/a"]).linux.readonly_paths == ("/a",)
    free = lowered(privileged=True).linux
    assert (free.masked_paths, free.readonly_paths) == ((), ())
    assert not [mount for mount in lowered(privileged=True).mounts if "ro" in mount.options]
    assert {mount.destination for mount in lowered().mounts if "ro" in mount.options} == {"/sys", "/sys/fs/cgroup"}


def test_other_knobs() -> None:
    spec = lowered(
        hostname="host.example",
        no_new_privileges=True,
        selinux_label="l",
        apparmor_profile="p",
        oom_score_adj=0,
        read_only=True,
        use_init=True,
        sysctl={"net/ipv4/ip_forward": "1", "a.b": ""},
        rlimits=["nofile=1:2", "core=0"],
        terminal=True,
        pty_size="100x50",
        pids_limit=9,
    )
    assert spec.hostname == "host.example"
    assert spec.root == ("/run/container/unit/rootfs", True)
    assert spec.annotations["dev.firkin.init"] == "1"
    assert spec.linux.sysctl == {"a.b": "", "net.ipv4.ip_forward": "1"}
    assert spec.linux.cgroups_path == "/firkin/unit"
    assert spec.linux.resources is not None
    assert spec.linux.resources.pids is not None
    assert spec.linux.resources.pids.limit == 9
    made = spec.process
    assert [limit.kind for limit in made.rlimits] == ["RLIMIT_CORE", "RLIMIT_NOFILE"]
    assert (made.no_new_privileges, made.selinux_label, made.apparmor_profile, made.oom_score_adj) == (
        True,
        "l",
        "p",
        0,
    )
    assert made.console_size == (50, 100)


def test_a_fraction_of_a_processor_is_the_cgroups() -> None:
    assert lowered(cpus=2).linux.resources is None
    half = lowered(cpus=0.5).linux.resources
    assert half is not None
    assert half.cpu == (50_000, 100_000)
    assert half.memory is None


def test_a_shared_vm_limits_each_container() -> None:
    options = container_options(cpus=2, memory="128m")
    resources = lower(options, IMAGE, container_id=ID, limit_resources=True).linux.resources
    assert resources is not None
    assert resources.cpu == (200_000, 100_000)
    assert resources.memory == (128 << 20, 128 << 20)


def test_a_filter_travels_as_an_annotation() -> None:
    spec = lower(container_options(), IMAGE, container_id=ID, seccomp=SeccompProgram(b"\1\2\3\4\5\6\7\0", 4))
    assert spec.annotations["dev.firkin.seccomp.bpf"] == "AQIDBAUGBwA="
    assert spec.annotations["dev.firkin.seccomp.flags"] == "4"


PATHS = st.lists(
    st.lists(st.sampled_from(["a", "b", "dev", "shm", "sys"]), min_size=1, max_size=4).map(
        lambda parts: "/" + "/".join(parts)
    ),
    unique=True,
    max_size=8,
)


@given(PATHS)
def test_a_mount_is_made_after_those_it_lies_on(paths: list[str]) -> None:
    mounts = lowered(tmpfs=paths).mounts
    places = [mount.destination for mount in mounts]
    assert len(set(places)) == len(places)
    assert set(paths) <= set(places)
    for index, place in enumerate(places):
        assert not any(later != place and place.startswith(f"{later}/") for later in places[index:])


def test_defaults_come_first_at_a_depth_and_give_way_to_the_users() -> None:
    default, deep, given = SpecMount("/dev"), SpecMount("/dev/shm"), SpecMount("/data")
    replaced = SpecMount("/dev/shm", "tmpfs")
    assert by_depth([deep, default], [given]) == (default, given, deep)
    assert by_depth([default, deep], [replaced, given]) == (default, given, replaced)
    with pytest.raises(InvalidInputError, match="two mounts at /data"):
        by_depth([], [given, given])


@pytest.mark.parametrize(
    "inputs",
    [
        {"env": ["NOVALUE"]},
        {"env": {"A=B": "x"}},
        {"env": {"A": "\0"}},
        {"command": ["a\0"]},
        {"command": ["", "x"]},
        {"rlimits": ["nofile=1", "NOFILE=2"]},
        {"oom_score_adj": 1001},
        {"pids_limit": 0},
        {"read_bps": 0},
        {"write_iops": -1},
        {"cpus": 0},
        {"cpus": float("nan")},
        {"cpus": "2"},
        {"mtu": "big"},
        {"mounts": 7},
        {"env": 1},
        {"memory": "1m"},
        {"accel": "hvf"},
        {"cmdline_extra": "a\nb"},
        {"network": "host"},
        {"network": "none", "publish": ["80"]},
        {"mac_address": "01:00:00:00:00:01"},
        {"publish": ["1:1", "1:2"]},
        {"sysctl": {"noDot": "1"}},
        {"sysctl": {"a.b": "1\n2"}},
        {"sysctl": {"a/../b": "1"}},
        {"stop_timeout": -1.0},
        {"group_add": ["a b"]},
        {"nonsense": 1},
        {"working_dir": "relative"},
    ],
)
def test_wrong_options_are_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        container_options(**inputs)
