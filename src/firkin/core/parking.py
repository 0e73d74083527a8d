"""The container that a base VM holds, made and waiting (`Park` in proto/firkin/agent.proto), and who may be it.

It has all that the default options give every container, and nothing that tells two apart: that comes when it is taken.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from firkin.core.lowering import lower
from firkin.core.options import ContainerOptions
from firkin.core.spec import Linux, Process, Root, RuntimeSpec, SpecMount, to_json
from firkin.oci.config import ImageConfig
from firkin.types import ContainerId

__all__ = ["parked_json", "program_of", "rest_of", "root_mounts_of"]

# Where it stands in the guest until it gets a root (docs/internals.md).
_STAGE = "/run/firkin/stage"
_CGROUP = "/firkin/+parked"
# Where the sources of later bind mounts are: only they stay on the stage.
_SOURCES = SpecMount("/run/container", "bind", "/run/container", ("bind",))


@cache
def _parked() -> RuntimeSpec:
    spec = lower(ContainerOptions(command=("-",)), ImageConfig(), container_id=ContainerId("parked"))
    return RuntimeSpec(
        process=Process(("-",)),
        root=Root(_STAGE),
        mounts=spec.mounts,
        linux=spec.linux._replace(cgroups_path=_CGROUP),
    )


def parked_json() -> bytes:
    """Its specification, which `parked.json` beside this module holds."""
    parked = _parked()
    return parked._replace(mounts=(*parked.mounts, _SOURCES)).to_json()


def rest_of(spec: RuntimeSpec) -> RuntimeSpec | None:
    """What the parked container lacks of `spec`; `None` where `spec` asks for something else than it is."""
    parked = _parked()
    count = len(parked.mounts)
    common, own = spec.mounts[:count], spec.mounts[count:]
    linux = spec.linux._replace(cgroups_path=_CGROUP)
    sources = spec.root.path.removesuffix("rootfs")
    if common != parked.mounts or linux != parked.linux or not all(_is_bind(mount, sources) for mount in own):
        return None
    return spec._replace(mounts=own, linux=Linux())


def root_mounts_of(spec: RuntimeSpec) -> str | None:
    """What the parked container takes along into the root of `spec`, as JSON, or `None` where that can't become it."""
    rest = rest_of(spec)
    return None if rest is None else to_json(_Mounts(rest.mounts)).decode()


def program_of(spec: RuntimeSpec, mounts: str) -> RuntimeSpec | None:
    """What a parked container lacks that took `mounts` (of `root_mounts_of`) along; `None` where `spec` has others, and
    where there is none (empty)."""
    return spec._replace(mounts=(), linux=Linux()) if root_mounts_of(spec) == mounts else None


class _Mounts(NamedTuple):
    mounts: tuple[SpecMount, ...]


def _is_bind(mount: SpecMount, sources: str) -> bool:
    """Whether it is a file that the agent wrote for this container, to be bound where nothing of the stage moves."""
    moved = ("/proc", "/dev", "/sys")
    place = mount.destination
    return mount.source.startswith(sources) and not any(place == top or place.startswith(f"{top}/") for top in moved)
