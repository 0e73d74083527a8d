"""The JSON of a runtime specification: its names are the specification's, and nothing is lost on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firkin.core.lowering import lower
from firkin.core.option_inputs import container_options
from firkin.core.spec import (
    Box,
    CpuResources,
    Device,
    Linux,
    MemoryResources,
    Namespace,
    PidsResources,
    Process,
    ProcessSpec,
    ProcessUser,
    Resources,
    Root,
    RuntimeSpec,
    SpecMount,
)
from firkin.errors import InvalidInputError
from firkin.oci.config import ImageConfig
from firkin.types import Capability, ContainerId, LinuxCapabilities, Rlimit

# runtime-spec v1.1.0, schema/config-schema.json, config-linux.json and defs.json: what may be where. None: any JSON.
MAP: dict[str, Any] = {"*": None}
SCHEMA: dict[str, Any] = {
    "ociVersion": None,
    "hostname": None,
    "annotations": MAP,
    "root": {"path": None, "readonly": None},
    "mounts": {"destination": None, "type": None, "source": None, "options": None},
    "process": {
        "args": None,
        "cwd": None,
        "env": None,
        "user": {"uid": None, "gid": None, "umask": None, "additionalGids": None, "username": None},
        "terminal": None,
        "consoleSize": {"height": None, "width": None},
        "capabilities": dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient")),
        "rlimits": {"type": None, "soft": None, "hard": None},
        "noNewPrivileges": None,
        "oomScoreAdj": None,
        "apparmorProfile": None,
        "selinuxLabel": None,
    },
    "linux": {
        "namespaces": {"type": None, "path": None},
        "cgroupsPath": None,
        "devices": dict.fromkeys(("path", "type", "major", "minor", "fileMode", "uid", "gid")),
        "resources": {
            "memory": {"limit": None, "swap": None},
            "cpu": {"quota": None, "period": None},
            "pids": {"limit": None},
            "unified": MAP,
        },
        "maskedPaths": None,
        "readonlyPaths": None,
        "sysctl": MAP,
        "rootfsPropagation": None,
        "mountLabel": None,
    },
}
REQUIRED = {
    "process": {"args", "cwd", "user"},
    "root": {"path"},
    "user": {"uid", "gid"},
    "rlimits": {"type", "soft", "hard"},
}


def conform(document: Any, schema: dict[str, Any], where: str = "") -> None:
    for key, value in document.items():
        assert key in schema or "*" in schema, f"{where}.{key} is not of the specification"
        below = schema.get(key)
        if below:
            for item in value if isinstance(value, list) else [value]:
                conform(item, below, key)
    assert REQUIRED.get(where, set()) <= set(document), where


TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\n"), max_size=8)
WORD = TEXT.filter(bool)
MAPS = st.dictionaries(WORD, TEXT, max_size=3)
CAPS = st.sets(st.sampled_from(list(Capability))).map(LinuxCapabilities.of)
WORDS = st.lists(WORD, max_size=3).map(tuple)
USERS = st.builds(ProcessUser, st.integers(0), st.integers(0), st.sampled_from([None, 0, 18]), st.just((5,)), TEXT)
PROCESSES = st.builds(
    Process,
    args=st.lists(WORD, min_size=1, max_size=3).map(tuple),
    cwd=WORD,
    env=WORDS,
    user=USERS,
    terminal=st.booleans(),
    console_size=st.one_of(st.none(), st.builds(Box, st.integers(1), st.integers(1))),
    capabilities=st.one_of(st.none(), CAPS),
    rlimits=st.sampled_from([(), (Rlimit("nofile", 0, 9),)]),
    no_new_privileges=st.booleans(),
    oom_score_adj=st.one_of(st.none(), st.integers(-1000, 1000)),
    apparmor_profile=TEXT,
    selinux_label=TEXT,
)
RESOURCES = st.builds(
    Resources,
    st.one_of(st.none(), st.builds(MemoryResources, st.integers(0), st.none())),
    st.one_of(st.none(), st.builds(CpuResources, st.integers(0), st.integers(1))),
    st.one_of(st.none(), st.builds(PidsResources, st.integers(0))),
    MAPS,
)
DEVICES = st.builds(Device, WORD, WORD, st.integers(0), st.integers(0), st.none(), st.just(0), st.none())
LINUX = st.builds(
    Linux,
    namespaces=st.lists(st.builds(Namespace, WORD, TEXT), max_size=2).map(tuple),
    cgroups_path=TEXT,
    resources=st.one_of(st.none(), RESOURCES),
    devices=st.lists(DEVICES, max_size=2).map(tuple),
    masked_paths=WORDS,
    readonly_paths=WORDS,
    sysctl=MAPS,
    rootfs_propagation=TEXT,
    mount_label=TEXT,
)
SPECS = st.builds(
    RuntimeSpec,
    process=PROCESSES,
    root=st.builds(Root, WORD, st.booleans()),
    linux=LINUX,
    hostname=TEXT,
    mounts=st.lists(st.builds(SpecMount, WORD, TEXT, TEXT, WORDS), max_size=3).map(tuple),
    annotations=MAPS,
    oci_version=WORD,
)


def unset(value: object) -> bool:
    return value is None or value is False or value in ("", (), {})


def agree(value: Any, document: Any) -> None:
    """Every field of `value` is in `document` with its content, and nothing else is."""
    if isinstance(value, LinuxCapabilities | Rlimit) or hasattr(value, "_fields"):
        names = getattr(value, "_fields", None) or value.__slots__
        held = {name: getattr(value, name) for name in names if not unset(getattr(value, name))}
        assert len(held) == len(document)
        for (_, item), found in zip(held.items(), document.values(), strict=True):
            agree(item, found)
    elif isinstance(value, tuple):
        assert len(value) == len(document)
        for item, found in zip(value, document, strict=True):
            agree(item, found)
    else:
        assert value == document


@settings(max_examples=100)
@given(SPECS)
def test_every_specification_comes_back_from_its_json_under_the_specifications_names(spec: RuntimeSpec) -> None:
    document = json.loads(spec.to_json())
    agree(spec, document)
    conform(document, SCHEMA)


def test_a_lowered_container_conforms() -> None:
    options = container_options(
        ["x"],
        terminal=True,
        rlimits=["nofile=5"],
        pids_limit=3,
        cpus=1.5,
        sysctl={"a.b": "1"},
        oom_score_adj=5,
        read_only=True,
        mounts=["/tmp:/x:ro"],
    )
    document = json.loads(lower(options, ImageConfig(), container_id=ContainerId("a")).to_json())
    conform(document, SCHEMA)
    assert document["process"]["consoleSize"] == {"height": 24, "width": 80}
    assert document["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 5}]
    assert document["linux"]["resources"] == {"cpu": {"quota": 150_000, "period": 100_000}, "pids": {"limit": 3}}


def test_no_capability_is_said_and_not_left_out() -> None:
    spec = RuntimeSpec(Process(("x",), capabilities=LinuxCapabilities.empty()), Root("/r"), Linux())
    assert json.loads(spec.to_json())["process"]["capabilities"] == {}


def test_a_further_process_is_sent_with_its_annotations_alone() -> None:
    spec = ProcessSpec(Process(("x",)), {"k": ""}, Root("/r"), "host")
    assert json.loads(spec.to_json()) == {
        "process": {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "annotations": {"k": ""},
    }


def test_bytes_that_are_no_text_are_refused() -> None:
    spec = RuntimeSpec(Process(("\udce9",)), Root("/r"), Linux())
    with pytest.raises(InvalidInputError, match="is not UTF-8"):
        spec.to_json()
