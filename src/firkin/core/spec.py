"""The OCI runtime specification, `config.json`: the part that Firkin writes.

Source: https://github.com/opencontainers/runtime-spec, v1.1.0, config.md and config-linux.md. A field has the
specification's name in snake case; its meaning, and what its absence means, are the specification's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from firkin.errors import InvalidInputError
from firkin.types import LinuxCapabilities, Rlimit

__all__ = [
    "Box",
    "CpuResources",
    "Device",
    "Linux",
    "MemoryResources",
    "Namespace",
    "PidsResources",
    "Process",
    "ProcessSpec",
    "ProcessUser",
    "Resources",
    "Root",
    "RuntimeSpec",
    "SpecMount",
    "keys",
    "to_json",
]

OCI_VERSION = "1.1.0"
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Box(NamedTuple):
    """A terminal's size in characters."""

    height: int
    width: int


class ProcessUser(NamedTuple):
    """Whom the process runs as. `username`, where not empty, wins over the numbers (docs/internals.md, vmexec)."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    username: str = ""


class Process(NamedTuple):
    """The container's process. `env` holds `NAME=value`."""

    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: ProcessUser = ProcessUser()
    terminal: bool = False
    console_size: Box | None = None
    capabilities: LinuxCapabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""


class Root(NamedTuple):
    """The root filesystem, mounted by the agent before."""

    path: str
    readonly: bool = False


class SpecMount(NamedTuple):
    """One mount; `options` in fstab's style."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()


class Namespace(NamedTuple):
    """A namespace to make, or with `path` to join.

    `type` is OCI's: pid, mount, uts, ipc, cgroup, network, user, time.
    """

    type: str
    path: str = ""


class Device(NamedTuple):
    """A device node to make. `type` is c, b, u or p; `file_mode` permission bits."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class MemoryResources(NamedTuple):
    """Bytes. `swap` is memory and swap together, as in the specification; equal to `limit` it allows no swap."""

    limit: int
    swap: int | None = None


class CpuResources(NamedTuple):
    """`quota` microseconds of processor time in each `period` of microseconds."""

    quota: int
    period: int = 100_000


class PidsResources(NamedTuple):
    """The most tasks at a time."""

    limit: int


class Resources(NamedTuple):
    """Limits of the container's cgroup; `unified` holds cgroup v2 files by name."""

    memory: MemoryResources | None = None
    cpu: CpuResources | None = None
    pids: PidsResources | None = None
    unified: Mapping[str, str] = _NOTHING


class Linux(NamedTuple):
    """What only Linux has."""

    namespaces: tuple[Namespace, ...] = ()
    cgroups_path: str = ""
    resources: Resources | None = None
    devices: tuple[Device, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctl: Mapping[str, str] = _NOTHING
    rootfs_propagation: str = ""
    mount_label: str = ""


class RuntimeSpec(NamedTuple):
    """A whole `config.json`: what `vmexec run` makes a container of."""

    process: Process
    root: Root
    linux: Linux
    hostname: str = ""
    mounts: tuple[SpecMount, ...] = ()
    annotations: Mapping[str, str] = _NOTHING
    oci_version: str = OCI_VERSION

    def to_json(self) -> bytes:
        """UTF-8 JSON without spaces; what is empty or unset is left out."""
        return to_json(self)


class ProcessSpec(NamedTuple):
    """What `vmexec exec` reads: a process, and the annotations that go with it (docs/internals.md, vmexec)."""

    process: Process
    annotations: Mapping[str, str] = _NOTHING
    # For whoever inspects an exec as a container of its own; not sent.
    root: Root | None = None
    hostname: str = ""

    def to_json(self) -> bytes:
        """UTF-8 JSON of `process` and `annotations`."""
        return to_json(self._replace(root=None, hostname=""))


# A key of the specification that is not its attribute in camel case.
_OWN_KEYS = {"kind": "type"}
_known_keys: dict[type[Any], tuple[tuple[str, str], ...]] = {}


def to_json(value: object) -> bytes:
    """Any value of this module as the specification's JSON.

    Raises `InvalidInputError` for text that is not Unicode (bytes of a command line that were no UTF-8).
    """
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.end + 20]
        raise InvalidInputError(
            f"{around!r} is not UTF-8", value=around, hint="OCI specifications hold text"
        ) from error


def keys(of: type[Any]) -> tuple[tuple[str, str], ...]:
    """Attribute and key of each field, worked out once for each class."""
    known = _known_keys.get(of)
    if known is None:
        # Those of this module are named tuples; Rlimit and LinuxCapabilities have slots.
        names: tuple[str, ...] = getattr(of, "_fields", None) or of.__slots__
        known = tuple((name, _OWN_KEYS.get(name) or _camel(name)) for name in names)
        _known_keys[of] = known
    return known


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int)):
        return value
    if type(value) is tuple:
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    held = ((key, getattr(value, name)) for name, key in keys(type(value)))
    return {key: _plain(item) for key, item in held if not _unset(item)}


def _unset(item: object) -> bool:
    return item is None or item is False or (isinstance(item, (str, tuple, Mapping)) and not item)
