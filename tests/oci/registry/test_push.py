"""Pushing to a real registry; skopeo and buildah take what arrived."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from firkin.errors import ImageNotFoundError, RegistryError
from firkin.oci import ImageStore
from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.pull import pull
from firkin.oci.registry.push import push
from firkin.types.platform import Platform
from firkin.types.state import StateDirs
from tests.oci.builders import Layout
from tests.oci.registry.conftest import run
from tests.oci.registry.servers import Registry, drop, harmful_proxy

FILES = {"a": os.urandom(2 << 20)}


def load(store: ImageStore, folder: Path, name: str = "localhost/pushed:1", **config: object) -> str:
    layout = Layout()
    target = layout.image(FILES, {"b": b"b"}, packing="+gzip", **config)
    layout.name(name, target)
    store.load(layout.write(folder))
    return str(target["digest"])


@pytest.mark.parametrize("chunk", [None, 300_000], ids=["monolithic", "chunked"])
async def test_what_is_pushed_is_taken_by_skopeo_and_by_us(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path, chunk: int | None
) -> None:
    digest = load(store, tmp_path / "l", **{"Cmd": ["/x"], "Labels": {"made": str(chunk)}})
    name = f"{registry.host}/pushed/{'chunked' if chunk else 'whole'}:1"
    outcomes: list[str] = []

    class Noted:
        def started(self, blob: object, offset: int) -> None: ...
        def advanced(self, blob: object, offset: int) -> None: ...
        def finished(self, blob: object, outcome: str) -> None:
            outcomes.append(outcome)

    pushed = await push(store, "pushed:1", name, chunk=chunk, client=client, progress=Noted())
    assert pushed.digest == digest
    assert outcomes.count("done") == 3
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path / 'copy'}:x")
    other = ImageStore(StateDirs.under(tmp_path / "other"))
    (copied,) = other.load(tmp_path / "copy")
    assert copied.digest == digest
    assert copied.config.cmd == ("/x",)
    outcomes.clear()
    await push(store, "pushed:1", name, client=client, progress=Noted())
    assert outcomes == ["exists"] * 3


async def test_what_is_pushed_is_taken_and_run_by_buildah(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path
) -> None:
    store.ensure_busybox()
    name = f"{registry.host}/pushed/busybox:1"
    await push(store, "busybox", name, client=client)
    buildah = ["buildah", "--root", tmp_path / "root", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]
    assert run(*buildah, "pull", "--tls-verify=false", name).strip() == store.resolve("busybox").image_id.hex
    container = run(*buildah, "from", "--pull-never", name).strip()
    # Its own runtime and `podman run` need a cgroup v2 host and CAP_SYS_RESOURCE; this isolation needs neither.
    assert run(*buildah, "run", "--isolation", "chroot", container, "echo", "hello") == "hello\n"
    # And what buildah makes of it comes back, in Docker's form.
    run(*buildah, "config", "--cmd", "made", container)
    run(*buildah, "commit", "--format", "docker", container, "made")
    run(*buildah, "push", "--tls-verify=false", "made", f"docker://{registry.host}/made/by-buildah:1")
    made = f"{registry.host}/made/by-buildah:1"
    await pull(store, made, client=client)
    assert store.resolve(made).config.cmd == ("made",)
    assert store.resolve(made).media_type == "application/vnd.docker.distribution.manifest.v2+json"


async def test_blobs_of_a_neighbour_are_mounted(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path
) -> None:
    load(store, tmp_path / "l")
    first = f"{registry.host}/mount/first:1"
    await push(store, "pushed:1", first, client=client)
    store.tag("pushed:1", first)
    outcomes: list[str] = []

    class Noted:
        def started(self, blob: object, offset: int) -> None: ...
        def advanced(self, blob: object, offset: int) -> None: ...
        def finished(self, blob: object, outcome: str) -> None:
            outcomes.append(outcome)

    await push(store, "pushed:1", f"{registry.host}/mount/second:1", client=client, progress=Noted())
    assert outcomes == ["mounted"] * 3


async def test_an_index_goes_whole_or_for_one_platform(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path
) -> None:
    layout = Layout()
    arm, amd = layout.image({"a": b"arm"}, architecture="arm64"), layout.image({"a": b"amd"})
    layout.name("localhost/multi:1", layout.index(arm, amd))
    store.load(layout.write(tmp_path / "l"))
    name = f"{registry.host}/pushed/multi:1"
    pushed = await push(store, "multi:1", name, client=client)
    assert pushed.digest == store.find("multi:1").target.digest
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert len(json.loads(raw)["manifests"]) == 2
    one = await push(store, "multi:1", f"{registry.host}/pushed/one:1", platform=Platform("arm64"), client=client)
    assert one.digest == arm["digest"]
    other = ImageStore(StateDirs.under(tmp_path / "other"))
    await pull(other, f"{registry.host}/pushed/multi:1", platform=Platform("arm64"), client=client)
    partial = await push(other, f"{registry.host}/pushed/multi:1", f"{registry.host}/pushed/part:1", client=client)
    assert partial.digest == arm["digest"]


async def test_a_broken_upload_begins_anew(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path, waits: list[float]
) -> None:
    load(store, tmp_path / "l")
    with harmful_proxy(registry.host) as proxy:
        proxy.harms["PUT .*/blobs/uploads/"] = lambda handler, before: before < 3 and (drop(handler) or True)
        await push(store, "pushed:1", f"{proxy.host}/pushed/broken:1", client=client)
        assert waits
        proxy.harms = {
            "POST": lambda handler, before: handler.reply(403, {}, b'{"errors":[{"code":"DENIED"}]}') or True
        }
        load(store, tmp_path / "2", **{"Cmd": ["other"]})
        with pytest.raises(RegistryError, match="DENIED") as caught:
            await push(store, "pushed:1", f"{proxy.host}/pushed/denied:1", client=client)
        assert caught.value.status == 403


async def test_what_can_not_be_pushed(store: ImageStore, client: RegistryClient) -> None:
    with pytest.raises(ImageNotFoundError):
        await push(store, "absent", "127.0.0.1:1/a:1", client=client)
