"""From a name to an image: short names, digests, ids, platforms."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from firkin.errors import ImageError, ImageNotFoundError
from firkin.oci import ImageStore
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.reference import Reference
from firkin.types.state import StateDirs
from tests.oci.builders import Layout


def load(store: ImageStore, folder: Path, *names: str, **config: Any) -> str:
    layout = Layout()
    target = layout.image({"name": repr(names).encode()}, **config)
    for name in names:
        layout.name(name, target)
    store.load(layout.write(folder))
    return str(target["digest"])


def test_a_local_name_wins_over_docker_io(store: ImageStore, tmp_path: Path) -> None:
    docker = load(store, tmp_path / "1", "docker.io/library/tool:latest")
    assert store.resolve("tool").digest == docker
    local = load(store, tmp_path / "2", "localhost/tool:latest")
    assert store.resolve("tool").digest == local
    assert store.resolve("docker.io/library/tool").digest == docker


def test_a_short_name_finds_the_only_image_that_ends_so(store: ImageStore, tmp_path: Path) -> None:
    one = load(store, tmp_path / "1", "quay.io/team/tool:latest")
    assert store.resolve("tool").digest == store.resolve("team/tool").digest == one
    load(store, tmp_path / "2", "ghcr.io/other/tool:latest")
    with pytest.raises(ImageError, match="ambiguous"):
        store.resolve("tool")
    with pytest.raises(ImageNotFoundError):
        store.resolve("ool")


def test_ids_and_digests(store: ImageStore, tmp_path: Path) -> None:
    digest = load(store, tmp_path / "1", "quay.io/a:1")
    image = store.resolve("quay.io/a:1")
    for text in (digest, digest.removeprefix("sha256:")[:12], image.image_id, image.image_id.hex[:20]):
        assert store.resolve(text).digest == digest
    assert store.resolve(f"quay.io/a:1@{digest}").digest == digest
    with pytest.raises(ImageNotFoundError):
        store.resolve(f"quay.io/a:1@sha256:{'0' * 64}")
    with pytest.raises(ImageNotFoundError):
        store.resolve("0123456789ab")


@pytest.mark.parametrize("other", ["busybox", "busybox:latest", "localhost/busybox:latest"])
def test_busybox_is_made_where_nobody_has_the_name(store: ImageStore, other: str) -> None:
    image = store.resolve(other)
    assert str(image.reference) == "localhost/busybox:latest"
    assert image.config.cmd == ("sh",)
    assert image.config.env[0].startswith("PATH=/")
    assert store.ensure_busybox() == image


def test_an_image_of_the_user_keeps_the_name_busybox(store: ImageStore, tmp_path: Path) -> None:
    digest = load(store, tmp_path / "1", "docker.io/library/busybox:latest")
    assert store.resolve("busybox").digest == digest
    with pytest.raises(ImageNotFoundError):
        store.resolve("busybox:1.36")


def test_a_second_resolve_does_not_hash_again(dirs: StateDirs, tmp_path: Path) -> None:
    hashed: Counter[str] = Counter()

    def counting(name: str) -> Any:
        hashed[name] += 1
        return hashlib.new(name)

    store = ImageStore(dirs, hasher=counting)
    load(store, tmp_path / "1", "localhost/a:1")
    fresh = ImageStore(dirs, hasher=counting)
    hashed.clear()
    first = fresh.resolve("a:1")
    assert hashed["sha256"] == 2  # the manifest and the config
    assert fresh.resolve("a:1") == first
    assert hashed["sha256"] == 2


def index_of(store: ImageStore, folder: Path, *platforms: tuple[str, str]) -> dict[str, str]:
    layout = Layout()
    images = {
        f"{architecture}/{variant}".rstrip("/"): layout.image(
            {"p": variant.encode()}, architecture=architecture, variant=variant
        )
        for architecture, variant in platforms
    }
    layout.name("localhost/multi:1", layout.index(*images.values()))
    store.load(layout.write(folder))
    return {name: str(target["digest"]) for name, target in images.items()}


def test_the_nearest_variant_of_a_platform_is_chosen(store: ImageStore, tmp_path: Path) -> None:
    digests = index_of(
        store, tmp_path / "l", ("arm", "v5"), ("arm", "v7"), ("arm", "v6"), ("arm64", "v8"), ("amd64", "v3")
    )
    for wanted, found in [("arm/v7", "arm/v7"), ("arm/v6", "arm/v6"), ("arm", "arm/v7"), ("arm64", "arm64/v8")]:
        assert store.resolve("multi:1", Platform.parse(wanted)).digest == digests[found]
    assert store.resolve("multi:1", Platform.parse("amd64/v4")).digest == digests["amd64/v3"]
    with pytest.raises(ImageNotFoundError, match="it offers linux/amd64/v3, linux/arm/v5"):
        store.resolve("multi:1", Platform.parse("amd64"))
    with pytest.raises(ImageNotFoundError, match="riscv64"):
        store.resolve("multi:1", Platform.parse("riscv64"))


def test_the_only_platform_there_is_serves_where_none_was_asked_for(store: ImageStore, tmp_path: Path) -> None:
    index_of(store, tmp_path / "l", ("s390x", ""))
    assert store.resolve("multi:1").platform == Platform("s390x")
    with pytest.raises(ImageNotFoundError, match="s390x"):
        store.resolve("multi:1", Platform("arm64"))


def test_a_single_manifest_for_another_platform_is_not_passed_off(store: ImageStore, tmp_path: Path) -> None:
    load(store, tmp_path / "l", "localhost/a:1", architecture="ppc64le")
    assert store.resolve("a:1").platform == Platform("ppc64le")
    with pytest.raises(ImageNotFoundError, match="is for linux/ppc64le, not for linux/amd64"):
        store.resolve("a:1", Platform("amd64"))


def test_a_damaged_blob_is_found_when_it_is_read(store: ImageStore, dirs: StateDirs, tmp_path: Path) -> None:
    digest = load(store, tmp_path / "l", "localhost/a:1")
    path = store.content.path(Digest(digest))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
    with pytest.raises(ImageError, match="is damaged"):
        ImageStore(dirs).resolve(Reference.parse("localhost/a:1"))


def test_the_digest_of_one_manifest_is_that_manifest_in_an_index_too(store: ImageStore, tmp_path: Path) -> None:
    digests = index_of(store, tmp_path / "l", ("arm64", "v8"), ("amd64", ""))
    arm = digests["arm64/v8"]
    assert store.resolve(arm).digest == arm
    store.names.set(Reference.parse("localhost/arm:1"), store.find(arm).target)
    assert store.resolve(arm).digest == arm, "named and part of an index: one image"
    assert store.resolve("multi:1").digest == digests["amd64"]
