"""Tagging, moving, removing and pruning names; saving and importing images."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
from pathlib import Path

import pytest

from firkin.errors import ImageError, ImageNotFoundError, InvalidInputError, StateError
from firkin.oci import ImageStore
from firkin.types.platform import Platform
from firkin.types.state import StateDirs
from tests.oci.builders import Layout, layer_tar, sha256


def load(store: ImageStore, folder: Path, name: str = "localhost/a:1", text: bytes = b"a") -> str:
    layout = Layout()
    target = layout.image({"file": text}, {"second": b"2"}, packing="+gzip", Cmd=["x"])
    layout.name(name, target)
    store.load(layout.write(folder))
    return str(target["digest"])


def test_a_moved_tag_leaves_an_untagged_image_that_prune_takes(store: ImageStore, tmp_path: Path) -> None:
    old = load(store, tmp_path / "1")
    new = load(store, tmp_path / "2", text=b"b")
    assert {(str(e.reference), str(e.target.digest)) for e in store.images()} == {("localhost/a:1", new), ("None", old)}
    assert store.resolve(old).digest == old
    report = store.prune()
    assert report.images == (old,)
    assert report.blobs == 3  # manifest, config, first layer; the second is the new image's too
    assert store.resolve("a:1").digest == new


def test_an_image_lives_as_long_as_one_of_its_names(store: ImageStore, tmp_path: Path) -> None:
    digest = load(store, tmp_path / "1")
    store.tag("a:1", "quay.io/b:2")
    store.tag(digest, "c")
    assert store.remove("a:1").blobs == 0
    assert store.resolve("localhost/c:latest").digest == digest
    with pytest.raises(StateError, match="several names"):
        store.remove(digest[7:30])
    assert store.remove(digest, force=True).blobs == 4
    assert list(store.content) == []
    with pytest.raises(ImageNotFoundError):
        store.remove("c")


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_what_is_saved_is_loaded_again_and_read_by_skopeo(store: ImageStore, tmp_path: Path, form: str) -> None:
    digest = load(store, tmp_path / "1")
    store.tag("a:1", "b:2")
    target = tmp_path / "saved"
    store.save(["a:1", "b:2"], target, form=form)  # type: ignore[arg-type]
    other = ImageStore(StateDirs.under(tmp_path / "other"))
    assert [str(image.reference) for image in other.load(target)] == ["localhost/a:1", "localhost/b:2"]
    assert other.resolve("a:1").digest == digest
    where = f"oci:{target}:localhost/a:1" if form == "oci-dir" else f"{form}:{target}:localhost/a:1"
    copied = subprocess.run(["skopeo", "copy", where, f"oci:{tmp_path / 'copy'}:x"], capture_output=True, text=True)
    assert copied.returncode == 0, copied.stderr
    assert [image.config.cmd for image in other.load(tmp_path / "copy")] == [("x",)]


def test_saving_is_deterministic_whole_or_not_at_all_and_verified(store: ImageStore, tmp_path: Path) -> None:
    load(store, tmp_path / "1")
    stream = io.BytesIO()
    store.save(["a:1"], stream)
    store.save(["a:1"], tmp_path / "file")
    assert stream.getvalue() == (tmp_path / "file").read_bytes()
    blob = store.content.path(store.resolve("a:1").layers[0].descriptor.digest)
    blob.chmod(0o600)
    blob.write_bytes(bytes(blob.stat().st_size))
    with pytest.raises(ImageError, match="damaged"):
        store.save(["a:1"], tmp_path / "other")
    assert not list(tmp_path.glob("*other*"))


def test_an_index_is_saved_whole_or_for_one_platform(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    arm, amd = layout.image({"a": b""}, architecture="arm64"), layout.image({"b": b""})
    layout.name("localhost/m:1", layout.index(arm, amd))
    store.load(layout.write(tmp_path / "l"))
    store.save(["m:1"], tmp_path / "all", form="oci-dir")
    store.save(["m:1"], tmp_path / "one", form="oci-dir", platform=Platform("arm64"))
    everything = json.loads((tmp_path / "all/index.json").read_text())["manifests"][0]["digest"]
    single = json.loads((tmp_path / "one/index.json").read_text())["manifests"][0]["digest"]
    assert everything == str(store.find("m:1").target.digest)
    assert single == arm["digest"]


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress], ids=["tar", "gzip"])
def test_a_root_filesystem_is_imported(store: ImageStore, pack: object) -> None:
    tar = layer_tar({"etc/x": b"x"})
    changes = ['CMD ["sh", "-c"]', "ENTRYPOINT run me", "ENV A=1 B='2 3'", "ENV C the rest", "LABEL k=v", "USER a:b"]
    changes += ["WORKDIR /w", "EXPOSE 80 53/udp", "VOLUME /data", "STOPSIGNAL SIGINT"]
    image = store.import_rootfs(io.BytesIO(pack(tar)), "mine:1", changes=changes, message="hi")  # type: ignore[operator]
    config = image.config
    assert str(image.reference) == "localhost/mine:1"
    assert config.diff_ids == (sha256(tar),)
    assert config.cmd == ("sh", "-c")
    assert config.entrypoint == ("/bin/sh", "-c", "run me")
    assert config.env == ("A=1", "B=2 3", "C=the rest")
    assert (config.user, config.working_dir, config.stop_signal) == ("a:b", "/w", "SIGINT")
    assert (config.exposed_ports, config.volumes, config.labels) == (("53/udp", "80/tcp"), ("/data",), {"k": "v"})
    assert config.history[0].comment == "hi"
    with store.rootfs(image) as lease:
        assert lease.path.read_bytes() == tar


def test_what_can_not_be_imported_leaves_nothing(store: ImageStore) -> None:
    for content in (b"no tar at all", b"x" * 2000, gzip.compress(b"")):
        with pytest.raises(ImageError, match="not a tar"):
            store.import_rootfs(io.BytesIO(content), "a:1")
    for change in ("RUN x", "CMD", "ENV x", "LABEL 'x"):
        with pytest.raises(InvalidInputError):
            store.import_rootfs(io.BytesIO(layer_tar({})), "a:1", changes=[change])
    assert list(store.images()) == []
    store.prune()
    assert list(store.content) == []
