"""The sync face and the engine have the same calls: a test, so that they stay together."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from firkin.core.blocking import Container, Process, run
from firkin.core.container import AsyncContainer
from firkin.core.process import AsyncProcess
from firkin.core.run import run_async


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


@pytest.mark.parametrize("name", ["wait", "kill", "stop", "resize"])
def test_process(name: str) -> None:
    ours, theirs = getattr(Process, name), getattr(AsyncProcess, name)
    assert _parameters(ours) == _parameters(theirs)
    assert _defaults(ours) == _defaults(theirs)


def test_run() -> None:
    assert _parameters(run) == _parameters(run_async)
    assert _defaults(run) == _defaults(run_async)
