"""`--pull` and `--platform` in real VMs, with a registry on loopback that has an index of two platforms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import firkin
from firkin.errors import ImageNotFoundError
from firkin.oci import Image, ImageStore
from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.push import push
from firkin.oci.registry.settings import RegistrySettings
from firkin.types import StateDirs
from firkin.types.reference import Reference
from tests.oci.registry.servers import Registry, docker_registry

pytestmark = [pytest.mark.vm, pytest.mark.needs_tool("docker-registry")]
UNAME = ["/bin/busybox", "uname", "-m"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path / "registry") as running:
        yield running


async def offer(registry: Registry, store: ImageStore, images: list[Image], name: str) -> None:
    """Put an index of `images` at the registry, under `name`."""
    entries = []
    async with RegistryClient(RegistrySettings(proxies=False)) as client:
        repository = await client.repository(Reference.parse(name))
        for image in images:
            pushed = await push(store, str(image.digest), f"{name}-{image.platform.architecture}", client=client)
            size = len((await repository.manifest(pushed.digest)).content)
            platform = {"os": "linux", "architecture": image.platform.architecture}
            entries.append({"mediaType": image.media_type, "digest": pushed.digest, "size": size, "platform": platform})
        media_type = "application/vnd.oci.image.index.v1+json"
        index = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
        await repository.put_manifest(str(name.rpartition(":")[2]), json.dumps(index).encode(), media_type)


async def test_what_is_missing_is_pulled_a_moved_tag_followed_and_a_platform_chosen(
    registry: Registry, home: Path, store: ImageStore, busybox_image: Image, busybox_arm64_image: Image, tmp_path: Path
) -> None:
    name = f"{registry.host}/run/busybox:1"
    await offer(registry, store, [busybox_image, busybox_arm64_image], name)

    # No image is here before; base VMs are.
    dirs = replace(StateDirs.under(home), data=tmp_path / "data")

    async def machine(**options: str) -> bytes | str:
        return (await firkin.run_async(name, UNAME, dirs=dirs, **options)).stdout  # type: ignore[arg-type]

    with pytest.raises(ImageNotFoundError, match=r"no image .*/run/busybox:1 in the store"):
        await machine(pull="never")
    assert await machine() == b"x86_64\n"
    with pytest.raises(ImageNotFoundError, match="linux/arm64"):
        await machine(pull="never", platform="linux/arm64")
    assert await machine(platform="linux/arm64") == b"aarch64\n"
    await offer(registry, store, [busybox_arm64_image], name)
    assert await machine() == b"x86_64\n"
    assert await machine(pull="always", platform="linux/arm64") == b"aarch64\n"
    with pytest.raises(ImageNotFoundError, match="linux/amd64"):
        await machine(pull="always", platform="linux/amd64")
