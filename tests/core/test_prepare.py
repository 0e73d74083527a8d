"""A container lowered to its VM without a boot: counterparts of the seed's `prepares_*` tests, and their neighbours."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest

from firkin.core.mount import FileMount, Mount, VirtiofsShare
from firkin.core.option_inputs import container_options
from firkin.core.prepare import GuestMount, PreparedVm, prepare, prepare_restored
from firkin.errors import InvalidInputError
from firkin.oci.config import ImageConfig
from firkin.oci.image import Image
from firkin.oci.rootfs import Rootfs
from firkin.types import ContainerId, Digest, GuestPath, Platform, Size
from firkin.vmm import BootLog, KernelImage

ROOT = "/run/container/unit/rootfs"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs.img"
    path.touch()
    return path


def raw(disk: Path, **inputs: object) -> PreparedVm:
    options = container_options("/bin/sh", **inputs)  # type: ignore[arg-type]
    return prepare(options, Rootfs.raw_block(disk), container_id=ContainerId("unit"), host=Platform("amd64"))


def bundle(architecture: str, disk: Path, **inputs: object) -> PreparedVm:
    digest = Digest("sha256:" + "0" * 64)
    config = ImageConfig(cmd=("/bin/uname",), env=("A=image",), architecture=architecture, labels=MappingProxyType({}))
    image = Image(None, digest, Platform(architecture), config, (), digest, "", 0)
    options = container_options(**inputs)  # type: ignore[arg-type]
    host = Platform("amd64")
    return prepare(options, Rootfs.oci_bundle(image), container_id=ContainerId("unit"), root_path=disk, host=host)


def test_prepares_vm_with_kernel_and_rootfs_device(disk: Path) -> None:
    prepared = raw(disk, memory=Size.mib(512))
    assert prepared.config.memory == Size.mib(512)
    assert prepared.config.kernel is None, "the default kernel is found at the start"
    assert prepared.rootfs == Rootfs.raw_block(disk)
    assert prepared.rootfs_device == (1, disk)
    assert prepared.rootfs_device.source == "/dev/vda"
    assert prepared.writable_layer_device is None
    assert prepared.config.disks[0].path == disk
    assert not prepared.emulate
    assert [mount[:3] for mount in prepared.guest_mounts] == [("ext4", "/dev/vda", ROOT)]
    assert prepared.spec.root.path == ROOT


def test_prepares_vm_with_writable_layer_block_device(disk: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer.img"
    layer.touch()
    prepared = raw(disk, writable_layer=layer)
    assert prepared.rootfs_device.slot == 1
    assert prepared.writable_layer_device == (2, layer)
    assert [entry.path for entry in prepared.config.disks] == [disk, layer]
    assert [entry.read_only for entry in prepared.config.disks] == [True, False]
    assert prepared.config.disks[1].direct, "what is written there is to stay"
    kinds = [mount.type for mount in prepared.guest_mounts]
    assert kinds == ["ext4", "ext4", "overlay"]
    assert prepared.guest_mounts[-1].destination == ROOT


def test_restored_vm_uses_private_staged_rootfs_path(tmp_path: Path) -> None:
    prepared = prepare_restored(container_options("/bin/sh"), tmp_path, container_id=ContainerId("unit"))
    assert prepared.rootfs_device.path == tmp_path / "unit-rootfs.ext4"
    assert prepared.config.disks[0].path == tmp_path / "unit-rootfs.ext4"
    assert prepared.config.disks[0].direct


def test_image_of_another_architecture_requests_emulation(disk: Path) -> None:
    assert bundle("arm64", disk).emulate
    assert not bundle("amd64", disk).emulate
    with pytest.raises(InvalidInputError, match="the image is for linux/arm64, this host is linux/amd64"):
        bundle("arm64", disk, emulate=False)


def test_explicit_emulate_request_enables_it(disk: Path) -> None:
    assert raw(disk, emulate=True).emulate


def test_prepares_vm_with_vm_level_knobs(disk: Path, tmp_path: Path) -> None:
    kernel, boot_log = tmp_path / "vmlinuz", tmp_path / "boot.log"
    kernel.touch()
    prepared = raw(
        disk,
        cpus=2,
        memory="768m",
        virtiofs_shares=[VirtiofsShare("shared", tmp_path)],
        nested=True,
        boot_log=boot_log,
        kernel=kernel,
        cmdline_extra="debug=1",
        cpu_model="Nehalem",
        accel="tcg",
    )
    config = prepared.config
    assert config.cpus == 2
    assert config.memory == Size.mib(768)
    assert [(share.tag, share.source) for share in prepared.shares] == [("shared", tmp_path)]
    assert config.nested
    assert config.boot_log == BootLog.file(boot_log)
    assert config.kernel == KernelImage.from_file(kernel)
    assert config.cmdline_extra == "debug=1"
    assert (config.cpu_model, config.accel) == ("Nehalem", "tcg")


def test_prepares_vm_with_file_mount_that_exposes_only_the_file(disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "secrets" / "config.json"
    source.parent.mkdir()
    source.write_text("{}")
    (source.parent / "key").write_text("not for the guest")
    prepared = raw(disk, file_mounts=[FileMount(source, GuestPath("/etc/app/config.json"), read_only=True)])
    (share,) = prepared.shares
    assert (share.source, share.only_file, share.read_only) == (source, True, True)
    assert len(share.tag) <= 36
    staged = f"/run/firkin/mounts/{share.tag}"
    assert prepared.guest_mounts[-1] == GuestMount("virtiofs", share.tag, staged)
    (mount,) = [mount for mount in prepared.spec.mounts if mount.destination == "/etc/app/config.json"]
    assert mount.source == f"{staged}/file"
    assert "ro" in mount.options


def test_a_bind_of_a_file_and_through_a_symlink_is_one_too(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    prepared = raw(disk, mounts=[f"{tmp_path}/link:/etc/x"])
    assert [(share.source, share.only_file) for share in prepared.shares] == [(tmp_path / "real", True)]


def test_mounts_of_one_folder_share_it_and_reading_is_apart_from_writing(disk: Path, tmp_path: Path) -> None:
    readers = raw(disk, mounts=[f"{tmp_path}:/a:ro", f"{tmp_path}/.:/b:ro"])
    assert [(share.source, share.read_only) for share in readers.shares] == [(tmp_path, True)]
    both = raw(disk, mounts=[f"{tmp_path}:/a:ro", f"{tmp_path}:/b", f"{tmp_path}:/c"])
    assert [share.read_only for share in both.shares] == [True, False], (
        "the host enforces the one, and serves the other"
    )
    sources = {mount.destination: mount.source for mount in both.spec.mounts}
    assert sources["/a"] != sources["/b"] == sources["/c"]


def test_mounts_of_one_volume_are_one_disk_and_one_writer_makes_it_writable(disk: Path, tmp_path: Path) -> None:
    options = container_options("x", mounts=["v:/a:ro", "v:/b", "w:/c:ro"])
    name = ContainerId("unit")
    prepared = prepare(
        options, Rootfs.raw_block(disk), container_id=name, disk_of=lambda mount: tmp_path / mount.source
    )
    assert [(entry.path.name, entry.read_only) for entry in prepared.config.disks[1:]] == [("v", False), ("w", True)]
    assert [mount.source for mount in prepared.guest_mounts[1:]] == ["/dev/vdb", "/dev/vdc"]
    read_only = {mount.destination: "ro" in mount.options for mount in prepared.spec.mounts}
    assert (read_only["/a"], read_only["/b"], read_only["/c"]) == (True, False, True)


def test_a_source_that_is_not_there_is_an_error_before_any_vm(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"there is nothing to mount at .*/none"):
        raw(disk, mounts=[f"{tmp_path}/none:/a"])
    with pytest.raises(InvalidInputError, match="is not a file"):
        raw(disk, file_mounts=[FileMount(tmp_path, GuestPath("/a"))])


def test_volumes_and_disks_follow_the_root_in_the_order_of_slots(disk: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.img"
    data.touch()
    options = container_options("x", mounts=[Mount.block("xfs", data, "/d", read_only=True), Mount.volume("v", "/v")])
    name = ContainerId("unit")
    prepared = prepare(
        options, Rootfs.raw_block(disk), container_id=name, disk_of=lambda mount: tmp_path / mount.source
    )
    assert [entry.path for entry in prepared.config.disks] == [disk, data, tmp_path / "v"]
    block, volume = prepared.guest_mounts[1:]
    assert (block.type, block.source, block.options) == ("xfs", "/dev/vdb", ("ro",))
    assert (volume.type, volume.source) == ("ext4", "/dev/vdc")
    assert {mount.source for mount in prepared.spec.mounts} >= {block.destination, volume.destination}
    with pytest.raises(InvalidInputError, match="volume mounts can't be prepared here"):
        prepare(container_options("x", mounts=["v:/v"]), Rootfs.raw_block(disk), container_id=name)


def test_an_image_is_never_written_and_must_be_on_disk(disk: Path) -> None:
    prepared = bundle("amd64", disk)
    assert prepared.config.disks[0].overlay
    assert "A=image" in prepared.spec.process.env
    assert (
        prepare(container_options("x"), Rootfs.ext4_image(disk), container_id=ContainerId("a")).config.disks[0].overlay
    )
    with pytest.raises(InvalidInputError, match="no root filesystem on disk yet"):
        prepare(container_options(), prepared.rootfs, container_id=ContainerId("unit"))


def test_preparing_again_gives_the_same(disk: Path, tmp_path: Path) -> None:
    assert raw(disk, mounts=[f"{tmp_path}:/a"], env={"A": "B"}) == raw(disk, mounts=[f"{tmp_path}:/a"], env={"A": "B"})
