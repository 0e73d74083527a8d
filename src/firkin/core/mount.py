"""Mounts of a container: what is mounted where, as the user says it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from firkin.core.spec import SpecMount
from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types import GuestPath, Size

__all__ = ["FileMount", "Mount", "MountKind", "VirtiofsShare", "staging_path"]

MountKind = Literal["bind", "file", "volume", "tmpfs", "image", "virtiofs", "block", "guest"]

# Where the agent mounts what comes from outside the VM, before it is bound into a container.
_STAGING = "/run/firkin/mounts"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a container.

    `kind` says what `source` is: `bind`, a folder of the host, shared live; `file`, one file of it; `volume`, a volume
    (empty: an anonymous one); `tmpfs`, nothing; `image`, an image's reference, read-only; `virtiofs`, the tag of a
    `VirtiofsShare`; `block`, a disk image of the host that holds a filesystem of `type`; `guest`, whatever mount(2) of
    `type` takes inside the container (proc, sysfs, devpts, mqueue, cgroup2, overlay, or a bind within the guest).
    `options` are fstab's, beside `ro`, which `read_only` gives. Raises `InvalidInputError`.
    """

    kind: MountKind
    destination: GuestPath
    source: str = ""
    type: str = ""
    options: tuple[str, ...] = ()
    read_only: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "destination", GuestPath.destination(self.destination))
        for text in (self.source, self.type, *self.options):
            # A path of the host may have any name.
            if "\0" in text or ("\n" in text and (text is not self.source or self.kind not in _HOST_PATHS)):
                raise InvalidInputError(f"the mount at {self.destination} has a NUL or a line break in it", value=text)
        for option in self.options:
            if not option or "," in option:
                raise InvalidInputError(f"{option!r} is not one mount option", value=option, hint="give each by itself")
        if self.kind in _NEED_SOURCE and not self.source:
            raise InvalidInputError(f"the {self.kind} mount at {self.destination} has no source", value=self)

    @classmethod
    def bind(
        cls, source: str | Path, destination: str, *, read_only: bool = False, options: Iterable[str] = ()
    ) -> Mount:
        """A file or folder of the host, live."""
        return cls("bind", GuestPath(destination), str(Path(source).absolute()), "", tuple(options), read_only)

    @classmethod
    def volume(cls, name: str, destination: str, *, read_only: bool = False, options: Iterable[str] = ()) -> Mount:
        """A volume by its name; an empty name makes an anonymous one, which lives as long as the container.

        An empty volume is filled with what the image has at `destination`, but not with the option `nocopy`.
        """
        return cls("volume", GuestPath(destination), name, "ext4", tuple(options), read_only)

    @classmethod
    def tmpfs(
        cls, destination: str, *, size: Size | int | None = None, mode: int | None = None, options: Iterable[str] = ()
    ) -> Mount:
        """Memory of the VM: at most `size` bytes, permission bits `mode` (1777 by default), nosuid, nodev and noexec as
        Docker's.
        """
        given = list(options)
        for pair in (("suid", "nosuid"), ("dev", "nodev"), ("exec", "noexec")):
            if not set(pair) & set(given):
                given.append(pair[1])
        if size is not None:
            given.append(f"size={int(Size(size))}")
        if not any(option.startswith("mode=") for option in given):
            given.append(f"mode={0o1777 if mode is None else mode:04o}")
        return cls("tmpfs", GuestPath(destination), "tmpfs", "tmpfs", tuple(given))

    @classmethod
    def image(cls, reference: str, destination: str) -> Mount:
        """An image's root filesystem, read-only."""
        return cls("image", GuestPath(destination), reference, "ext4", (), True)

    @classmethod
    def virtiofs(cls, tag: str, destination: str, *, read_only: bool = False) -> Mount:
        """A share of the VM by its tag."""
        return cls("virtiofs", GuestPath(destination), tag, "virtiofs", (), read_only)

    @classmethod
    def block(
        cls, type: str, source: str | Path, destination: str, *, read_only: bool = False, options: Iterable[str] = ()
    ) -> Mount:
        """A disk image of the host that holds a filesystem of `type`."""
        return cls("block", GuestPath(destination), str(Path(source).absolute()), type, tuple(options), read_only)

    @classmethod
    def guest(cls, type: str, source: str, destination: str, *, options: Iterable[str] = ()) -> Mount:
        """A filesystem of the guest's kernel, mounted inside the container as mount(2) would."""
        given = tuple(option for option in options if option != "ro")
        return cls("guest", GuestPath(destination), source, type, given, "ro" in tuple(options))

    @property
    def staging(self) -> str:
        """Where in the guest this mount's content is put, for kinds that come from outside the VM; the same source, the
        same place. What is shared read-only is a share of its own, so that the host enforces it.
        """
        share = self.kind in ("bind", "file")
        # Each anonymous volume is its own.
        source = self.source or f":{self.destination}"
        return staging_path(f"{self.kind}-ro" if share and self.read_only else self.kind, source)

    def lowered(self) -> SpecMount:
        """As vmexec makes it, inside the container."""
        end = ("ro",) if self.read_only else ()
        if self.kind in ("tmpfs", "guest"):
            return SpecMount(self.destination, self.type, self.source, (*self.options, *end))
        # What comes from outside the VM is bound from where the agent has mounted it (firkin.core.prepare).
        propagation = () if _PROPAGATION & set(self.options) else ("rprivate",)
        # The file has this name whatever it is on the host, see firkin.vmm.share_room.
        source = f"{self.staging}/file" if self.kind == "file" else self.staging
        # An empty volume starts with what the image has there; vmexec looks whether it is empty.
        copy = ("tmpcopyup",) if self.kind == "volume" and not self.read_only and "nocopy" not in self.options else ()
        given = (option for option in self.options if option != "nocopy")
        return SpecMount(self.destination, "bind", source, ("rbind", *propagation, *copy, *given, *end))


_PROPAGATION = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"))
_HOST_PATHS = frozenset(("bind", "file", "block"))
_NEED_SOURCE = frozenset(("bind", "file", "image", "virtiofs", "block"))


@dataclass(frozen=True, slots=True)
class FileMount:
    """One file of the host at `destination` in the guest.

    Nothing beside it is exposed; writes come back unless `read_only`.
    """

    source: Path
    destination: GuestPath
    read_only: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Path(self.source).absolute())
        object.__setattr__(self, "destination", GuestPath.destination(self.destination))

    def as_mount(self) -> Mount:
        """The same as a mount."""
        return Mount("file", self.destination, str(self.source), read_only=self.read_only)


@dataclass(frozen=True, slots=True)
class VirtiofsShare:
    """A folder of the host, live in the VM under `tag`, mounted in a container by `Mount.virtiofs`."""

    tag: str
    source: Path
    read_only: bool = False


def staging_path(kind: str, source: str) -> str:
    """Where in the guest the agent puts what `source` names; same source, same place."""
    return f"{_STAGING}/{kind}-{hashlib.sha256(source.encode(errors='surrogateescape')).hexdigest()[:24]}"
