"""The short way to learn that a tag has not moved: taken where it is certain, left to the registry client elsewhere."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from firkin.errors import InvalidInputError
from firkin.oci import ImageStore
from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.pull import pull
from firkin.oci.registry.settings import RegistrySettings
from firkin.oci.registry.unchanged import unchanged
from firkin.types import Platform
from tests.oci.builders import Layout
from tests.oci.registry.conftest import push_layout
from tests.oci.registry.servers import Registry, harmful_proxy

SIZE = 1 << 30
# Runs the command line, then tells which of the expensive modules it has imported.
SCRIPT = """
import sys
from firkin.cli.main import run
try:
    sys.exit(run(sys.argv[1:]))
finally:
    print(sorted({"asyncio", "httpx", "rich", "google.protobuf"} & set(sys.modules)))
"""


def layout(text: bytes = b"1") -> Layout:
    one = Layout()
    return one.name("x", one.image({"a": text}, {"b": b"b"}))


async def test_one_request_tells(
    registry: Registry, store: ImageStore, client: RegistryClient, settings: RegistrySettings, tmp_path: Path
) -> None:
    push_layout(registry, layout(), tmp_path / "1", "unchanged/one:1")
    with harmful_proxy(registry.host) as proxy:
        name = f"{proxy.host}/unchanged/one:1"
        assert unchanged(store, name, settings=settings) is None, "not here yet"
        assert proxy.seen == []
        image = (await pull(store, name, client=client)).image
        proxy.seen.clear()
        found = unchanged(store, name, settings=settings)
        assert found is not None
        assert (found.image, found.changed, found.rootfs) == (image, False, None)
        assert [one.method for one in proxy.seen] == ["HEAD"]
        assert unchanged(store, name, convert=SIZE, settings=settings) is None, "not converted yet"
        store.rootfs(image, SIZE).release()
        found = unchanged(store, name, convert=SIZE, settings=settings)
        assert found is not None
        assert found.rootfs is not None
        found.rootfs.release()
        assert unchanged(store, name, platform=Platform("arm64"), settings=settings) is None, "another platform"
        push_layout(registry, layout(b"2"), tmp_path / "2", "unchanged/one:1")
        assert unchanged(store, name, settings=settings) is None, "moved"


async def test_a_digest_needs_no_request_and_a_missing_layer_a_whole_pull(
    registry: Registry, store: ImageStore, client: RegistryClient, settings: RegistrySettings, tmp_path: Path
) -> None:
    name = push_layout(registry, layout(), tmp_path / "1", "unchanged/digest:1")
    digest = (await pull(store, name, client=client)).image.digest
    pinned = f"{name.rpartition(':')[0]}@{digest}"
    image = (await pull(store, pinned, client=client)).image
    unreachable = replace(settings, insecure=frozenset())
    assert unchanged(store, pinned, settings=unreachable, environ={"https_proxy": "x"}) is not None
    store.content.path(image.layers[0].descriptor.digest).unlink()
    assert unchanged(store, name, settings=settings) is None
    assert unchanged(store, pinned, settings=settings) is None


@pytest.mark.parametrize("status", [301, 307, 401, 404, 405, 429, 500])
async def test_any_other_answer_is_the_clients_affair(
    registry: Registry,
    store: ImageStore,
    client: RegistryClient,
    settings: RegistrySettings,
    tmp_path: Path,
    status: int,
) -> None:
    push_layout(registry, layout(), tmp_path / "1", "unchanged/other:1")
    with harmful_proxy(registry.host) as proxy:
        name = f"{proxy.host}/unchanged/other:1"
        await pull(store, name, client=client)
        proxy.harms["HEAD"] = lambda handler, before: handler.reply(status, {"Location": "/v2/"}) or True
        assert unchanged(store, name, settings=settings) is None
        proxy.harms["HEAD"] = lambda handler, before: handler.reply(200, {}) or True
        assert unchanged(store, name, settings=settings) is None, "no digest in the answer"
    assert unchanged(store, name, settings=settings) is None, "nobody listens"


async def test_mirrors_and_proxies_are_the_clients_affair(
    registry: Registry, store: ImageStore, client: RegistryClient, settings: RegistrySettings, tmp_path: Path
) -> None:
    name = push_layout(registry, layout(), tmp_path / "1", "unchanged/mirrored:1")
    await pull(store, name, client=client)
    mirrored = replace(settings, mirrors={registry.host: ("127.0.0.1:1",)})
    assert unchanged(store, name, settings=mirrored) is None
    proxies = {"HTTP_PROXY": "http://127.0.0.1:1"}
    through = replace(settings, proxies=True)
    assert unchanged(store, name, settings=through, environ=proxies) is not None, "never for loopback"
    store.tag(name, "registry.invalid/a:1")
    assert unchanged(store, "registry.invalid/a:1", settings=through, environ=proxies) is None
    with pytest.raises(InvalidInputError):
        unchanged(store, "Not A Name", settings=settings)


def test_the_second_pull_imports_little(registry: Registry, fresh_home: Path, tmp_path: Path) -> None:
    name = push_layout(registry, layout(), tmp_path / "1", "unchanged/command:1")

    def command() -> list[str]:
        call = [sys.executable, "-c", SCRIPT, "pull", "--progress", "none", name]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()

    first, second = command(), command()
    assert "httpx" in first[-1], "or the look for modules finds nothing"
    assert second[-1] == "[]"
    assert second[0] == f"{first[0]} (unchanged)"
