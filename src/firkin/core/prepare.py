"""A container lowered all the way to the shape of its VM, without a boot: to be inspected, tested, and then started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from firkin.core.guest_root import GuestMount, disk_device, root_mounts, vm_config
from firkin.core.lowering import SeccompProgram, lower, rootfs_path
from firkin.core.name_files import name_mounts
from firkin.core.options import ContainerOptions
from firkin.core.spec import RuntimeSpec
from firkin.errors import InvalidInputError
from firkin.oci.config import ImageConfig
from firkin.oci.rootfs import Ext4Image, OciBundle, RawBlock, Rootfs, snapshot_rootfs
from firkin.types import ContainerId, Platform, VirtiofsTag
from firkin.vmm import Disk, VmConfig

if TYPE_CHECKING:
    from firkin.core.mount import Mount
    from firkin.vmm.assets import BootAssets

__all__ = ["BlockDevice", "GuestMount", "HostShare", "PreparedVm", "prepare", "prepare_restored", "resolve_binds"]

DiskOf = Callable[["Mount"], Path]


class BlockDevice(NamedTuple):
    """A disk of the VM: `slot` counts from 1 in the order of `VmConfig.disks`, so slot 1 is `/dev/vda` in the
    guest.
    """

    slot: int
    path: Path

    @property
    def source(self) -> str:
        """What the agent's Mount call names it."""
        return disk_device(self.slot - 1)


class HostShare(NamedTuple):
    """A folder of the host that the VM sees under `tag`. With `only_file`, `source` is one file and nothing beside it
    is seen.

    `read_only` is for the host's side to enforce.
    """

    tag: VirtiofsTag
    source: Path
    read_only: bool
    only_file: bool = False


@dataclass(frozen=True, slots=True)
class PreparedVm:
    """All that is started for a container.

    `config` has no networks and no shares yet: both need descriptors of helpers that do not run. `shares` says what the
    latter are to be. `guest_mounts` are in the order to make them, the root filesystem's first. `emulate`: the image is
    for another architecture. `assets` are the kernel and initramfs, where they were given.
    """

    config: VmConfig
    rootfs: Rootfs
    rootfs_device: BlockDevice
    writable_layer_device: BlockDevice | None
    shares: tuple[HostShare, ...]
    guest_mounts: tuple[GuestMount, ...]
    spec: RuntimeSpec
    emulate: bool
    assets: BootAssets | None = None


def prepare(
    options: ContainerOptions,
    rootfs: Rootfs,
    *,
    container_id: ContainerId,
    root_path: Path | None = None,
    disk_of: DiskOf | None = None,
    seccomp: SeccompProgram | None = None,
    host: Platform | None = None,
    assets: BootAssets | None = None,
) -> PreparedVm:
    """Lower `options` for a container with `rootfs`; reads nothing but what kind of files bind mounts name.

    `root_path` is the ext4 image of an `OciBundle` (`ImageStore.rootfs` leases it). `disk_of` finds the disk image of a
    volume or image mount. Raises `InvalidInputError` for options that fit neither rootfs nor host.
    """
    options = resolve_binds(options)
    image = rootfs.image if isinstance(rootfs, OciBundle) else None
    disk = _root_disk(options, rootfs, root_path)
    config = vm_config(options, disk.path)
    disks = [disk, *config.disks[1:]]
    spec = lower(
        options,
        image.config if image else ImageConfig(),
        container_id=container_id,
        seccomp=seccomp,
        extra_mounts=name_mounts(options, rootfs_path(container_id)),
    )
    outer: dict[str, GuestMount] = {}
    for mount in options.mounts:
        if (found := _guest_mount(mount, disks, disk_of)) is not None:
            outer.setdefault(mount.staging, found)
    return PreparedVm(
        config=replace(config, disks=tuple(disks)),
        rootfs=rootfs,
        rootfs_device=BlockDevice(1, disk.path),
        writable_layer_device=BlockDevice(2, config.disks[1].path) if options.writable_layer else None,
        shares=_shares(options),
        guest_mounts=(*root_mounts(options, spec.root.path), *outer.values()),
        spec=spec,
        emulate=_emulate(options, image.platform if image else None, host or Platform.current()),
        assets=assets,
    )


def prepare_restored(options: ContainerOptions, folder: Path, *, container_id: ContainerId) -> PreparedVm:
    """As `prepare`, for a container restored in `folder`, on its own copy of the root filesystem there."""
    return prepare(options, RawBlock(snapshot_rootfs(folder, container_id)), container_id=container_id)


def resolve_binds(options: ContainerOptions) -> ContainerOptions:
    """`options` whose bind mounts of single files are `file` mounts.

    Raises `InvalidInputError` for a missing source.
    """
    given = [*options.mounts, *(file.as_mount() for file in options.file_mounts)]
    if not given:
        return options
    return replace(options, mounts=tuple(map(_resolved, given)), file_mounts=())


def _resolved(mount: Mount) -> Mount:
    if mount.kind not in ("bind", "file", "block"):
        return mount
    try:
        source = Path(mount.source).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidInputError(
            f"there is nothing to mount at {mount.source}", value=mount.source, hint="create it first"
        ) from error
    if mount.kind == "file" and not source.is_file():
        raise InvalidInputError(f"{mount.source} is not a file", value=mount.source, hint="bind a folder instead")
    kind = "file" if mount.kind == "bind" and not source.is_dir() else mount.kind
    return replace(mount, kind=kind, source=str(source))


def _root_disk(options: ContainerOptions, rootfs: Rootfs, root_path: Path | None) -> Disk:
    below = options.writable_layer is not None
    if isinstance(rootfs, RawBlock):
        return Disk(rootfs.path, read_only=below, overlay=False)
    path = rootfs.path if isinstance(rootfs, Ext4Image) else root_path
    if path is None:
        raise InvalidInputError(
            "the image has no root filesystem on disk yet", value=rootfs, hint="lease one of the store"
        )
    return Disk(path, read_only=below, overlay=not below)


def _guest_mount(mount: Mount, disks: list[Disk], disk_of: DiskOf | None) -> GuestMount | None:
    """How the agent gets at what `mount` names, adding a disk where it needs one; `None` for what the container mounts
    itself.
    """
    if mount.kind in ("bind", "file"):
        return GuestMount("virtiofs", _tag(mount), mount.staging)
    if mount.kind == "virtiofs":
        return GuestMount("virtiofs", mount.source, mount.staging)
    if mount.kind in ("volume", "image", "block"):
        if mount.kind != "block" and disk_of is None:
            raise InvalidInputError(f"{mount.kind} mounts can't be prepared here", value=mount, hint="give disk_of")
        path = Path(mount.source) if disk_of is None or mount.kind == "block" else disk_of(mount)
        disks.append(Disk(path, read_only=mount.read_only, overlay=False))
        device = BlockDevice(len(disks), path)
        return GuestMount(mount.type, device.source, mount.staging, ("ro",) if mount.read_only else ())
    return None


def _shares(options: ContainerOptions) -> tuple[HostShare, ...]:
    """One for each source: mounts of one folder share it, writable if one of them is."""
    shares = {
        share.tag: HostShare(VirtiofsTag(share.tag), share.source, share.read_only) for share in options.virtiofs_shares
    }
    for mount in options.mounts:
        if mount.kind in ("bind", "file"):
            tag = _tag(mount)
            read_only = mount.read_only and (tag not in shares or shares[tag].read_only)
            shares[tag] = HostShare(tag, Path(mount.source), read_only, mount.kind == "file")
    return tuple(shares.values())


def _tag(mount: Mount) -> VirtiofsTag:
    return VirtiofsTag(mount.staging.rpartition("/")[2])


def _emulate(options: ContainerOptions, image: Platform | None, host: Platform) -> bool:
    needed = image is not None and image.architecture != host.architecture
    if needed and options.emulate is False:
        raise InvalidInputError(f"the image is for {image}, this host is {host}", value=image, hint="drop --no-emulate")
    return needed or bool(options.emulate)
