"""Scenarios: which titles have a test, how they went, and which are missing; and the containers that they share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import firkin
from firkin.oci import Image

_PROPERTY = "scenario"


def titles() -> dict[str, str]:
    """The group of each title, in their order."""
    lines = (Path(__file__).parent / "titles.txt").read_text().splitlines()
    pairs = (line.split(": ", 1) for line in lines if line and not line.startswith("#"))
    return {title: group for group, title in pairs}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "scenario(title): the scenario of titles.txt that the test is")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The title goes with the report, so that it also arrives from a worker."""
    known = titles()
    for item in items:
        for marker in item.iter_markers("scenario"):
            if marker.args[0] not in known:
                raise pytest.UsageError(f"{item.nodeid}: titles.txt has no scenario {marker.args[0]!r}")
            item.user_properties.append((_PROPERTY, marker.args[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name, result and seconds of each scenario, and the titles that no test bears."""
    results: dict[str, tuple[str, float]] = {}
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.getreports(outcome):
            for name, title in getattr(report, "user_properties", ()):
                if name == _PROPERTY:
                    seconds = results.get(title, ("", 0.0))[1] + report.duration
                    results[title] = (outcome, seconds)
    terminalreporter.section("scenarios")
    missing = [title for title in titles() if title not in results]
    for title in titles():
        if title in results:
            outcome, seconds = results[title]
            terminalreporter.write_line(f"{title:<58} {outcome:<8} {seconds:6.2f} s")
    terminalreporter.write_line(f"{len(results)} of {len(titles())} scenarios ran")
    for group in dict.fromkeys(titles().values()):
        if lost := [title for title in missing if titles()[title] == group]:
            terminalreporter.write_line(f"missing, {group} ({len(lost)}): {'; '.join(lost)}")


@pytest.fixture(scope="module")
def plain(busybox_image: Image) -> Iterator[firkin.Container]:
    """A container without any option, which sleeps. Not the session's: other tests of this worker look for VMs."""
    with firkin.Container.launch("busybox", ["sleep", "600"]) as container:
        yield container


@pytest.fixture(scope="module")
def special(busybox_image: Image) -> Iterator[firkin.Container]:
    """A container with many options, which sleeps below an init."""
    with firkin.Container.launch(
        "busybox",
        ["sleep", "600"],
        cap_add=["NET_ADMIN"],
        cpus=1.5,
        pids_limit=200,
        no_new_privileges=True,
        rlimits=["nofile=1024:2048"],
        sysctl={"kernel.msgmax": "4096", "net.ipv4.ip_forward": "1"},
        read_only=True,
        hostname="named",
        use_init=True,
    ) as container:
        yield container
