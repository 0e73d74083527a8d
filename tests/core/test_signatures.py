"""The sync face and the engine have the same calls: a test, so that they stay together."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from firkin.core.blocking import Container, Pipe, Process, run
from firkin.core.blocking_pool import WarmPool
from firkin.core.container import AsyncContainer
from firkin.core.pool import AsyncWarmPool
from firkin.core.process import AsyncProcess
from firkin.core.run import run_async
from firkin.vminitd.stream import Stream

# The engine's side, for core's own layers; a user of the sync face has no need of them.
ENGINE_ONLY = {
    AsyncContainer: {
        "own": "launch hands over what is to be undone",
        "forget": "run lets go of its process",
        "exec_config": "the control socket brings a checked configuration",
        "set_limits": "the control socket brings checked limits",
        "replace_policy": "the control socket brings a checked policy",
        "copy_peer": "the control socket copies by it",
        "adopt": "what a restore brought along",
        "describe": "what the control socket answers to inspect",
        "dial_vsock": "streams are asyncio's",
        "listen_vsock": "streams are asyncio's",
        "processes": "the owner's list",
        "aclose": "close",
    },
    AsyncProcess: {
        "communicate": "run does it",
        "streams": "relays take them",
        "aclose": "the container's end does it",
    },
    AsyncWarmPool: {"start": "entering the block does it", "aclose": "close"},
}
PAIRS = ((Container, AsyncContainer), (Process, AsyncProcess), (WarmPool, AsyncWarmPool))


def _parameters(function: Any) -> list[tuple[str, object, object]]:
    signature = inspect.signature(function)
    return [(p.name, p.kind, p.annotation) for p in signature.parameters.values()]


def _defaults(function: Any) -> list[object]:
    return [p.default for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(
    "name",
    [
        *("launch", "wait", "kill", "stop", "exec", "run", "open_tty", "stats", "update", "pause", "resume"),
        *("publish", "unpublish", "set_network_policy"),
    ],
)
def test_container(name: str) -> None:
    ours, theirs = getattr(Container, name), getattr(AsyncContainer, name)
    assert _parameters(ours) == _parameters(theirs)
    assert _defaults(ours) == _defaults(theirs)


def _public(kind: type) -> dict[str, Any]:
    """Methods and properties of `kind`, those of its bases too."""
    members = {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}
    return {
        name: member
        for name, member in members.items()
        if isinstance(member, property | classmethod) or inspect.isfunction(member)
    }


def _calls() -> list[Any]:
    return [
        pytest.param(ours, theirs, name, id=f"{ours.__name__}.{name}")
        for ours, theirs in PAIRS
        for name, member in _public(ours).items()
        if name != "close" and not isinstance(member, property)
    ]


@pytest.mark.parametrize(("ours", "theirs", "name"), _calls())
def test_each_call_has_the_engine_s_parameters(ours: type, theirs: type, name: str) -> None:
    mine, its = getattr(ours, name), getattr(theirs, name)
    assert _parameters(mine) == _parameters(its)
    assert _defaults(mine) == _defaults(its)
    assert not inspect.iscoroutinefunction(mine)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_what_the_engine_can_do_the_sync_face_can(ours: type, theirs: type) -> None:
    missing = set(_public(theirs)) - set(_public(ours)) - set(ENGINE_ONLY[theirs])
    assert missing == set(), "give it a twin in core/blocking.py, or say above why not"


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_properties_are_of_one_type(ours: type, theirs: type) -> None:
    for name, member in _public(ours).items():
        if isinstance(member, property):
            its = inspect.getattr_static(theirs, name, None)
            if isinstance(its, property):
                mine, wanted = (inspect.signature(each.fget).return_annotation for each in (member, its))
                assert mine == wanted.replace("Stream", "Pipe"), name


def test_a_pipe_is_a_stream() -> None:
    assert _defaults(Pipe.read)[1:] == _defaults(Stream.read)[1:]
    assert [name for name, *_ in _parameters(Pipe.write)] == [name for name, *_ in _parameters(Stream.write)]


def test_run() -> None:
    assert _parameters(run) == _parameters(run_async)
    assert _defaults(run) == _defaults(run_async)
