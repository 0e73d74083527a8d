"""One registry for a worker's tests, with images that skopeo pushed, and settings that know nothing of the user's."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.settings import RegistrySettings
from firkin.oci.registry.transport import Retry
from tests.oci.builders import Layout
from tests.oci.registry.servers import Registry, docker_registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def run(*arguments: object) -> str:
    """Run a program that must succeed; what it printed."""
    ended = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def push_layout(registry: Registry, layout: Layout, folder: Path, name: str, *, everything: bool = False) -> str:
    """Push the only image of `layout` by skopeo; returns its reference."""
    layout.entries[0]["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    layout.write(folder)
    target = f"{registry.host}/{name}"
    every = ["--all"] if everything else []
    run(
        "skopeo",
        "copy",
        *every,
        "--dest-tls-verify=false",
        "--preserve-digests",
        f"oci:{folder}:x",
        f"docker://{target}",
    )
    return target


@pytest.fixture
def settings(tmp_path: Path) -> RegistrySettings:
    return RegistrySettings(
        auth_files=(tmp_path / "auth.json",),
        login_file=tmp_path / "auth.json",
        certificates=(tmp_path / "certs.d",),
        proxies=False,
    )


@pytest.fixture
def waits() -> list[float]:
    """How long the client would have waited between tries."""
    return []


@pytest.fixture
async def client(settings: RegistrySettings, waits: list[float]) -> AsyncIterator[RegistryClient]:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with RegistryClient(settings, retry=Retry(attempts=4, sleep=sleep), timeout=5) as opened:
        yield opened
