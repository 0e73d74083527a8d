"""Which containers may be the parked one of a base VM, and what of their specification it lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firkin.core import parking
from firkin.core.lowering import lower
from firkin.core.name_files import name_mounts
from firkin.core.option_inputs import container_options
from firkin.core.parking import parked_json, program_of, rest_of, root_mounts_of
from firkin.core.spec import RuntimeSpec, SpecMount
from firkin.oci.config import ImageConfig
from firkin.types import ContainerId

ID = ContainerId("c1")


def specification(**options: Any) -> RuntimeSpec:
    chosen = container_options(("echo", "hi"), **options)
    extra = name_mounts(chosen, f"/run/container/{ID}/rootfs")
    return lower(chosen, ImageConfig(), container_id=ID, extra_mounts=extra)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"read_only": True, "hostname": "h", "user": "1000:1000", "terminal": True, "use_init": True},
        {"cap_add": ["SYS_ADMIN"], "no_new_privileges": True},
    ],
)
def test_it_is_a_default_container_with_all_that_is_its_own(options: dict[str, Any]) -> None:
    spec = specification(**options)
    rest = rest_of(spec)
    assert rest is not None
    parked = json.loads(parked_json())
    *mounts, sources = parked["mounts"]
    whole, sent = json.loads(spec.to_json()), json.loads(rest.to_json())
    # Together they are the specification, but for the cgroup, whose name is the parked container's.
    assert [*mounts, *sent.pop("mounts")] == whole.pop("mounts")
    assert sources["destination"] == sources["source"] == "/run/container"
    assert parked["linux"] == whole.pop("linux") | {"cgroupsPath": "/firkin/+parked"}
    assert sent.pop("linux") == {}
    assert sent == whole


def test_what_is_in_its_root_lacks_its_program_alone() -> None:
    mounts = root_mounts_of(specification())
    assert mounts is not None
    assert [mount["destination"] for mount in json.loads(mounts)["mounts"]] == ["/etc/hosts", "/etc/resolv.conf"]
    spec = specification(read_only=True, hostname="h", user="1000:1000", terminal=True)
    program, rest = program_of(spec, mounts), rest_of(spec)
    assert rest is not None
    assert program == rest._replace(mounts=())


@pytest.mark.parametrize("options", [{"network": "none"}, {"privileged": True}, {"mounts": ["type=tmpfs,dst=/tmp"]}])
def test_what_has_other_mounts_is_not_the_one_in_the_root(options: dict[str, Any]) -> None:
    mounts = root_mounts_of(specification())
    assert mounts is not None
    assert program_of(specification(**options), mounts) is None


def test_what_can_not_be_parked_gets_no_root() -> None:
    assert root_mounts_of(specification(privileged=True)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"privileged": True},
        {"shm_size": "1m"},
        {"pids_limit": 7},
        {"cpus": 0.5},
        {"masked_paths": ()},
        {"readonly_paths": ("/proc/sys",)},
        {"sysctl": {"kernel.msgmax": "1"}},
        {"mounts": ["type=tmpfs,dst=/tmp"]},
    ],
)
def test_what_the_parked_container_has_not_is_made_anew(options: dict[str, Any]) -> None:
    assert rest_of(specification(**options)) is None


@pytest.mark.parametrize(
    ("source", "destination"),
    [("/run/container/other/hosts", "/etc/hosts"), ("/etc/hosts", "/etc/hosts"), ("/run/container/c1/x", "/dev/x")],
)
def test_only_files_of_its_own_are_bound(source: str, destination: str) -> None:
    spec = specification()
    assert rest_of(spec._replace(mounts=(*spec.mounts, SpecMount(destination, "bind", source, ("bind",))))) is None


def test_the_file_holds_what_the_default_options_give() -> None:
    file = Path(parking.__file__).with_name("parked.json")
    assert file.read_bytes() == parked_json(), f"write parked_json() to {file}"


def test_nothing_in_it_tells_two_containers_apart() -> None:
    parked = json.loads(parked_json())
    assert parked["process"] == {"args": ["-"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    assert parked.keys() == {"ociVersion", "process", "root", "linux", "mounts"}
