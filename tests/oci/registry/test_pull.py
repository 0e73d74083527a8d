"""Pulling from a real registry."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from firkin.errors import ImageNotFoundError, RegistryError
from firkin.oci import ImageStore
from firkin.oci.ensure import ensure
from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.pull import pull
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.state import StateDirs
from tests.oci.builders import Concatenated, Layout, layer_tar
from tests.oci.registry.conftest import push_layout
from tests.oci.registry.servers import Registry

LAYERS = ({"a": os.urandom(3 << 20)}, {"b": b"b" * 100}, {"c": b"c"})


def image_layout(*, packing: str = "+gzip", text: bytes = b"") -> Layout:
    layout = Layout()
    return layout.name("x", layout.image(*LAYERS, {"text": text}, packing=packing, Cmd=["/a"]))


@pytest.mark.parametrize("packing", ["", "+gzip", "+zstd"])
async def test_an_image_is_pulled_and_converted_as_it_comes(
    registry: Registry, store: ImageStore, writer: Concatenated, client: RegistryClient, tmp_path: Path, packing: str
) -> None:
    name = push_layout(registry, image_layout(packing=packing), tmp_path / "l", f"plain{packing.replace('+', '-')}:1")
    pulled = await pull(store, name, convert=1 << 30, client=client)
    assert pulled.changed
    assert pulled.rootfs is not None
    with pulled.rootfs as lease:
        assert lease.path.read_bytes() == b"".join(layer_tar(layer) for layer in (*LAYERS, {"text": b""}))
    assert store.resolve(name) == pulled.image
    assert pulled.image.config.cmd == ("/a",)
    again = await pull(store, name, convert=1 << 30, client=client)
    assert (again.changed, again.image, writer.calls) == (False, pulled.image, 1)
    assert again.rootfs is not None
    again.rootfs.release()
    assert not list((store.content.root / "leases").iterdir())


async def test_a_moved_tag_is_noticed_by_policy_always_only(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path
) -> None:
    name = push_layout(registry, image_layout(text=b"1"), tmp_path / "1", "moving:tag")
    with pytest.raises(ImageNotFoundError):
        await ensure(store, name, policy="never", client=client)
    first = (await ensure(store, name, client=client)).image
    push_layout(registry, image_layout(text=b"2"), tmp_path / "2", "moving:tag")
    assert (await ensure(store, name, client=client)).image == first
    assert (await ensure(store, name, policy="never", client=client)).image == first
    second = (await ensure(store, name, policy="always", client=client)).image
    assert second.digest != first.digest
    assert store.prune().images == (str(first.digest),)


async def test_a_platform_of_an_index_and_a_digest(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path
) -> None:
    layout = Layout()
    images = {arch: layout.image({"a": arch.encode()}, architecture=arch) for arch in ("amd64", "arm64", "s390x")}
    layout.name("x", layout.index(*images.values()))
    name = push_layout(registry, layout, tmp_path / "l", "multi:1", everything=True)
    arm = await pull(store, name, platform=Platform("arm64"), client=client)
    assert arm.image.digest == images["arm64"]["digest"]
    other = await pull(store, name, platform=Platform("s390x"), client=client)
    assert other.image.platform == Platform("s390x")
    with pytest.raises(ImageNotFoundError, match="it offers linux/amd64, linux/arm64, linux/s390x"):
        await pull(store, name, platform=Platform("ppc64le"), client=client)
    pinned = f"{name.rpartition(':')[0]}@{images['amd64']['digest']}"
    assert (await pull(store, pinned, client=client)).image.digest == images["amd64"]["digest"]
    assert store.resolve(pinned).digest == images["amd64"]["digest"]
    assert store.resolve(name, Platform("arm64")) == arm.image


async def test_what_is_not_there(
    registry: Registry, store: ImageStore, client: RegistryClient, waits: list[float]
) -> None:
    with pytest.raises(ImageNotFoundError, match="has no absent:1"):
        await pull(store, f"{registry.host}/absent:1", client=client)
    with pytest.raises(RegistryError, match=r"can't reach 127\.0\.0\.1:1"):
        await pull(store, "127.0.0.1:1/absent:1", client=client)
    with pytest.raises(ImageNotFoundError):
        await ensure(store, "localhost/absent:1", client=client)
    assert waits == []


async def test_two_pulls_of_one_image_share_the_work(
    registry: Registry, dirs: StateDirs, client: RegistryClient, writer: Concatenated, tmp_path: Path
) -> None:
    name = push_layout(registry, image_layout(), tmp_path / "l", "shared:1")
    counted: list[str] = []

    class Count:
        def started(self, blob: object, offset: int) -> None: ...
        def advanced(self, blob: object, offset: int) -> None: ...
        def finished(self, blob: object, outcome: str) -> None:
            counted.append(outcome)

    stores = [ImageStore(dirs, write_image=writer) for _ in range(3)]
    pulls = await asyncio.gather(*(pull(one, name, convert=1 << 30, client=client, progress=Count()) for one in stores))
    assert counted.count("done") == 5  # the config and four layers
    assert writer.calls == 1
    for pulled in pulls:
        assert pulled.rootfs is not None
        pulled.rootfs.release()


async def test_a_cancelled_pull_leaves_no_lease_and_resumes(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path
) -> None:
    name = push_layout(registry, image_layout(), tmp_path / "l", "cancelled:1")
    begun = asyncio.Event()

    class Began:
        def started(self, blob: object, offset: int) -> None:
            begun.set()

        def advanced(self, blob: object, offset: int) -> None: ...
        def finished(self, blob: object, outcome: str) -> None: ...

    task = asyncio.create_task(pull(store, name, convert=1 << 30, client=client, progress=Began()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list((store.content.root / "leases").iterdir())
    assert list(store.images()) == []
    pulled = await pull(store, name, convert=1 << 30, client=client)
    assert pulled.rootfs is not None
    pulled.rootfs.release()


async def test_mirrors_are_asked_first_and_may_lack_things(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path
) -> None:
    name = push_layout(registry, image_layout(), tmp_path / "l", "library/mirrored:1")
    mirrored = replace(client.settings, mirrors={"docker.io": ("127.0.0.1:1", registry.host)})
    async with RegistryClient(mirrored, retry=client.transport.retry) as through:
        # docker.io itself is never asked: the second mirror has it all.
        pulled = await pull(store, "mirrored:1", client=through)
    assert str(pulled.image.reference) == "docker.io/library/mirrored:1"
    assert pulled.image.digest == (await pull(store, name, client=client)).image.digest
    assert isinstance(pulled.image.digest, Digest)


async def test_progress_is_entered_for_a_download_only(
    registry: Registry, store: ImageStore, client: RegistryClient, tmp_path: Path
) -> None:
    name = push_layout(registry, image_layout(), tmp_path / "l", "progress:1")
    seen: list[str] = []

    class Shown:
        def started(self, blob: object, offset: int) -> None:
            seen.append("started")

        def advanced(self, blob: object, offset: int) -> None: ...
        def finished(self, blob: object, outcome: str) -> None: ...

    @contextlib.contextmanager
    def showing() -> Iterator[Shown]:
        seen.append("entered")
        yield Shown()
        seen.append("left")

    first = await ensure(store, name, convert=1 << 30, client=client, progress=showing())
    assert (seen[0], seen[-1], seen.count("entered")) == ("entered", "left", 1)
    assert "started" in seen
    seen.clear()
    second = await ensure(store, name, convert=1 << 30, client=client, progress=showing())
    assert (seen, second.image, first.changed, second.changed) == ([], first.image, True, False)
    for pulled in (first, second):
        assert pulled.rootfs is not None
        pulled.rootfs.release()
