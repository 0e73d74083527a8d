"""Loading: every form an image may come in, and every way in which it may be wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
import zstandard

from firkin.errors import ImageError
from firkin.oci import ImageLimits, ImageStore
from firkin.types.state import StateDirs
from tests.oci.builders import LAYER, MANIFEST, Layout, docker_archive, layer_tar, sha256, tar_of

HELLO = {"bin/hello": b"hello\n"}


@pytest.mark.parametrize("packing", ["", "+gzip", "+zstd"])
def test_a_layout_folder_is_loaded_with_its_config(store: ImageStore, tmp_path: Path, packing: str) -> None:
    layout = Layout()
    layout.name(
        "localhost/a:1", layout.image(HELLO, packing=packing, Env=["A=b"], Cmd=["/bin/hello"], StopSignal="SIGINT")
    )
    (image,) = store.load(layout.write(tmp_path / "layout"))
    assert str(image.reference) == "localhost/a:1"
    assert (image.config.env, image.config.cmd, image.config.stop_signal) == (("A=b",), ("/bin/hello",), "SIGINT")
    with store.rootfs(image) as lease:
        assert lease.path.read_bytes() == layer_tar(HELLO)


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstandard.compress], ids=["tar", "gzip", "zstd"])
@pytest.mark.parametrize("kind", ["layout", "docker"])
def test_an_archive_is_loaded_from_a_pipe(store: ImageStore, kind: str, pack: object) -> None:
    layout = Layout()
    layout.name("localhost/a:1", layout.image(HELLO))
    archive = layout.tar() if kind == "layout" else layer_tar(docker_archive(["localhost/a:1"], layer_tar(HELLO)))
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source:
        os.write(writer, pack(archive))  # type: ignore[operator]
        os.close(writer)
        (image,) = store.load(source)
    assert store.resolve("a:1") == image


def test_links_between_layers_of_a_docker_archive_are_followed_by_name(store: ImageStore, tmp_path: Path) -> None:
    files = docker_archive(["a:1"], layer_tar(HELLO), layer_tar({"b": b"b"}))
    members = []
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        members.append((member, content))
    link = tarfile.TarInfo("2/layer.tar")
    link.type, link.linkname = tarfile.SYMTYPE, "../0/layer.tar"
    manifest = json.loads(files["manifest.json"])
    manifest[0]["Layers"][0] = "2/layer.tar"
    members = [
        (link, b""),
        *[(m, json.dumps(manifest).encode() if m.name == "manifest.json" else c) for m, c in members],
    ]
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    (image,) = store.load(tmp_path / "a.tar")
    assert str(image.reference) == "docker.io/library/a:1"
    assert image.layers[0].diff_id == sha256(layer_tar(HELLO))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("latest", "localhost/my-layout:latest"),
        ("b:2", "localhost/b:2"),
        ("quay.io/x/y:z", "quay.io/x/y:z"),
        (None, "None"),
    ],
)
def test_names_in_a_layout(store: ImageStore, tmp_path: Path, name: str | None, expected: str) -> None:
    layout = Layout()
    layout.name(name, layout.image(HELLO))
    (image,) = store.load(layout.write(tmp_path / "My_Layout"))
    assert str(image.reference) == expected


def test_docker_media_types_are_read_and_schema_1_is_refused_by_name(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    target = layout.image(HELLO)
    document = json.loads(layout.blobs[target["digest"]])
    document["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
    document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar"
    layout.name("a:1", layout.blob(json.dumps(document).encode(), document["mediaType"]))
    assert store.load(layout.write(tmp_path / "docker"))[0].media_type == document["mediaType"]
    old = Layout()
    old.name("b:1", old.blob(b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+prettyjws"))
    with pytest.raises(ImageError, match="schema 1"):
        store.load(old.write(tmp_path / "old"))


def broken(change: str) -> Layout:
    layout = Layout()
    target = layout.image(HELLO)
    manifest = json.loads(layout.blobs[target["digest"]])
    if change == "missing layer":
        del layout.blobs[manifest["layers"][0]["digest"]]
    elif change == "damaged layer":
        layout.blobs[manifest["layers"][0]["digest"]] = bytes(len(layer_tar(HELLO)))
    elif change == "short layer":
        layout.blobs[manifest["layers"][0]["digest"]] = b"x"
    elif change == "long layer":
        layout.blobs[manifest["layers"][0]["digest"]] += b"x"
    elif change == "manifest":
        layout.blobs[target["digest"]] += b" "
    else:
        manifest = {
            "no config": manifest | {"config": None},
            "layers no list": manifest | {"layers": {}},
            "two kinds": manifest | {"manifests": []},
            "bad digest": manifest | {"layers": [{"mediaType": LAYER, "digest": "sha256:../../etc/passwd", "size": 1}]},
            "negative": manifest | {"layers": [manifest["layers"][0] | {"size": -1}]},
            "diff_ids": manifest | {"layers": manifest["layers"] * 2},
            "contradiction": manifest | {"mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        }[change]
        target = layout.blob(json.dumps(manifest).encode(), MANIFEST)
    return layout.name("a:1", target)


CHANGES = ["missing layer", "damaged layer", "short layer", "long layer", "manifest", "no config", "layers no list"]
CHANGES += ["two kinds", "bad digest", "negative", "diff_ids", "contradiction"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_broken_image_is_refused_and_names_nothing(store: ImageStore, tmp_path: Path, form: str, change: str) -> None:
    layout = broken(change)
    with pytest.raises(ImageError) as caught:
        store.load(layout.write(tmp_path / "l") if form == "folder" else io.BytesIO(layout.tar()))
    assert "\n" not in str(caught.value)
    assert list(store.images()) == []
    assert all(sha256(store.content.path(digest).read_bytes()) == digest for digest in store.content)


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 5000, b"\x1f\x8b" + bytes(100), layer_tar({"a": b""}), b"BZh9" + bytes(600), layer_tar(HELLO)[:700]],
    ids=["empty", "text", "gzip", "other tar", "bzip2", "truncated"],
)
def test_what_is_no_image_is_refused_in_one_line(store: ImageStore, content: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        store.load(io.BytesIO(content))
    assert "\n" not in str(caught.value)


def test_a_huge_extension_header_is_refused_before_it_is_read(store: ImageStore) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(ImageError, match="impossible size"):
        store.load(io.BytesIO(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))


def test_limits_bound_archives_manifests_and_layers(dirs: StateDirs, tmp_path: Path) -> None:
    layout = Layout()
    layout.name("a:1", layout.image(HELLO, {"b": b"b"}))
    folder, archive = layout.write(tmp_path / "l"), layout.tar()
    for limits, match in [
        (ImageLimits(manifest=50), "larger than 50"),
        (ImageLimits(config=50), "config is larger"),
        (ImageLimits(layers=1), "more than 1"),
        (ImageLimits(layer=100), "layer of the image is larger"),
    ]:
        with pytest.raises(ImageError, match=match):
            ImageStore(dirs, limits=limits).load(folder)
    for limits, match in [
        (ImageLimits(archive=3000), "unpacks to more"),
        (ImageLimits(members=2), "more than 2 members"),
    ]:
        with pytest.raises(ImageError, match=match):
            ImageStore(dirs, limits=limits).load(io.BytesIO(archive))


def test_an_archive_bomb_ends_at_the_limit(dirs: StateDirs) -> None:
    bomb = gzip.compress(layer_tar({"blobs/sha256/x": bytes(20 << 20)}))
    with pytest.raises(ImageError, match="unpacks to more"):
        ImageStore(dirs, limits=ImageLimits(archive=1 << 20)).load(io.BytesIO(bomb))
    assert sum(path.stat().st_size for path in dirs.data.rglob("*") if path.is_file()) < 2 << 20


def test_a_pipe_in_place_of_a_blob_does_not_stall(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    target = layout.image(HELLO)
    folder = layout.name("a:1", target).write(tmp_path / "l")
    blob = folder / "blobs" / target["digest"].replace(":", "/")
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(ImageError, match="not a regular file"):
        store.load(folder)


def test_attestations_and_other_systems_are_left_out(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    real = layout.image(HELLO)
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": layout.blob(b"{}", "application/x"), "layers": []}
    document["layers"] = [layout.blob(b"{}", "application/vnd.in-toto+json")]
    other = layout.blob(json.dumps(document).encode(), MANIFEST) | {
        "platform": {"os": "unknown", "architecture": "unknown"}
    }
    layout.name("a:1", layout.index(other, real))
    (image,) = store.load(layout.write(tmp_path / "l"))
    assert image.digest == real["digest"]
