"""A container lowered all the way to the shape of its VM, without a boot: to be inspected, tested, and then started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from firkin.core.guest_root import GuestMount, disk_device, root_mounts, rootfs_path, vm_config
from firkin.core.options import ContainerOptions
from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.oci.config import ImageConfig
from firkin.oci.rootfs import Ext4Image, OciBundle, RawBlock, Rootfs, snapshot_rootfs
from firkin.types import ContainerId, Platform, VirtiofsTag
from firkin.vmm.config import Disk, Share, VmConfig

if TYPE_CHECKING:
    from firkin.core.lowering import SeccompProgram
    from firkin.core.mount import Mount
    from firkin.core.spec import RuntimeSpec
    from firkin.vmm.assets import BootAssets

__all__ = ["BlockDevice", "GuestMount", "PreparedVm", "prepare", "prepare_restored", "resolve_binds"]

DiskOf = Callable[["Mount"], Path]
SeccompOf = Callable[[ContainerOptions], "SeccompProgram | None"]


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


@dataclass(frozen=True)
class PreparedVm:
    """All that is started for a container. `spec` is lowered when it is asked for: QEMU starts without it.

    `config` has no networks yet: they need descriptors of helpers that do not run. `guest_mounts` are in the order to
    make them, the root filesystem's first. `emulate`: the image is for another architecture. `assets` are the kernel
    and initramfs, where they were given.
    """

    config: VmConfig
    rootfs: Rootfs
    rootfs_device: BlockDevice
    writable_layer_device: BlockDevice | None
    guest_mounts: tuple[GuestMount, ...]
    emulate: bool
    container_id: ContainerId
    options: ContainerOptions
    seccomp: SeccompOf | None = field(default=None, repr=False, compare=False)
    assets: BootAssets | None = None

    @property
    def shares(self) -> tuple[Share, ...]:
        """The live shares, each of one folder or file."""
        return self.config.shares

    @cached_property
    def spec(self) -> RuntimeSpec:
        """The runtime specification. Raises `InvalidInputError`, `ImageError` as `lower` does."""
        from firkin.core.lowering import lower
        from firkin.core.name_files import name_mounts

        return lower(
            self.options,
            self.rootfs.image.config if isinstance(self.rootfs, OciBundle) else ImageConfig(),
            container_id=self.container_id,
            seccomp=self.seccomp(self.options) if self.seccomp else None,
            extra_mounts=name_mounts(self.options, rootfs_path(self.container_id)),
        )


def prepare(
    options: ContainerOptions,
    rootfs: Rootfs,
    *,
    container_id: ContainerId,
    root_path: Path | None = None,
    disk_of: DiskOf | None = None,
    seccomp: SeccompOf | None = None,
    host: Platform | None = None,
    assets: BootAssets | None = None,
) -> PreparedVm:
    """Lower `options` for a container with `rootfs`; reads nothing but what kind of files bind mounts name.

    `root_path` is the ext4 image of an `OciBundle` (`ImageStore.rootfs` leases it). `disk_of` finds the disk image of a
    volume or image mount. `seccomp` gives the first process's filter.

    Raises `InvalidInputError` for options that fit neither rootfs nor host.
    """
    options = resolve_binds(options)
    image = rootfs.image if isinstance(rootfs, OciBundle) else None
    disk = _root_disk(options, rootfs, root_path)
    config = vm_config(options, disk.path)
    disks = [disk, *config.disks[1:]]
    outer: dict[str, GuestMount] = {}
    for mount in options.mounts:
        if mount.staging not in outer and (found := _guest_mount(mount, options, disks, disk_of)) is not None:
            outer[mount.staging] = found
    return PreparedVm(
        config=replace(config, disks=tuple(disks), shares=_shares(options)),
        rootfs=rootfs,
        rootfs_device=BlockDevice(1, disk.path),
        writable_layer_device=BlockDevice(2, config.disks[1].path) if options.writable_layer else None,
        guest_mounts=(*root_mounts(options, rootfs_path(container_id)), *outer.values()),
        emulate=_emulate(options, image.platform if image else None, host or Platform.current()),
        container_id=container_id,
        options=options,
        seccomp=seccomp,
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
    # The store's images are written once; what somebody names may change.
    return Disk(path, read_only=below, overlay=not below, immutable=isinstance(rootfs, OciBundle))


def _guest_mount(
    mount: Mount, options: ContainerOptions, disks: list[Disk], disk_of: DiskOf | None
) -> GuestMount | None:
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
        # One disk for all mounts of it, writable if one of them is.
        read_only = all(other.read_only for other in options.mounts if other.staging == mount.staging)
        from firkin.ext4 import needs_recovery

        # After a power cut reading takes a repair first, which a layer that is thrown away takes in.
        torn = read_only and mount.kind != "image" and path.is_file() and needs_recovery(path)
        disks.append(Disk(path, read_only=read_only and not torn, overlay=torn))
        device = BlockDevice(len(disks), path)
        return GuestMount(mount.type, device.source, mount.staging, ("ro",) if read_only else ())
    return None


def _shares(options: ContainerOptions) -> tuple[Share, ...]:
    """One for each source that is mounted in one way: mounts of one folder share it."""
    shares = {
        share.tag: Share(VirtiofsTag(share.tag), share.source.resolve(), share.read_only)
        for share in options.virtiofs_shares
    }
    for mount in options.mounts:
        if mount.kind in ("bind", "file"):
            tag = _tag(mount)
            shares[tag] = Share(tag, Path(mount.source), mount.read_only, mount.kind == "file")
    return tuple(shares.values())


def _tag(mount: Mount) -> VirtiofsTag:
    return VirtiofsTag(mount.staging.rpartition("/")[2])


def _emulate(options: ContainerOptions, image: Platform | None, host: Platform) -> bool:
    needed = image is not None and image.architecture != host.architecture
    if needed and options.emulate is False:
        raise InvalidInputError(f"the image is for {image}, this host is {host}", value=image, hint="drop --no-emulate")
    return needed or bool(options.emulate)
