"""Options and an image's configuration to one OCI runtime specification: pure, so that it can be tested and inspected.

The rules of merging are Docker's (docs/decisions/lowering.md): explicit values win field by field, the environment
merges by name.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from firkin.core.guest_root import rootfs_path
from firkin.core.policy import MASKED_PATHS, READONLY_PATHS, effective_capabilities
from firkin.core.spec import (
    Box,
    CpuResources,
    Linux,
    MemoryResources,
    Namespace,
    PidsResources,
    Process,
    ProcessUser,
    Resources,
    Root,
    RuntimeSpec,
    SpecMount,
)
from firkin.errors import ImageError, InvalidInputError
from firkin.types import ContainerId, GuestPath, Hostname, Signal, User

if TYPE_CHECKING:
    from firkin.core.options import ContainerOptions
    from firkin.core.process_options import ProcessOptions
    from firkin.oci.config import ImageConfig

__all__ = [
    "DEFAULT_PATH",
    "SeccompProgram",
    "by_depth",
    "console",
    "further_groups",
    "join_env",
    "lower",
    "lower_user",
    "merge_env",
    "process_annotations",
    "renamed",
    "resolve_hostname",
    "resolve_labels",
    "resolve_stop_signal",
]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH where neither the image nor the user gives one; Docker's."""

_TERM = "xterm"
_CPU_PERIOD_US = 100_000
_NAMESPACES = tuple(Namespace(name) for name in ("pid", "ipc", "uts", "mount", "cgroup"))


class SeccompProgram(NamedTuple):
    """A compiled filter: `struct sock_filter[]` as bytes (linux/filter.h), and seccomp(2)'s flags."""

    bpf: bytes
    flags: int = 0

    def annotations(self) -> dict[str, str]:
        """As vmexec takes it (docs/internals.md)."""
        return {
            "dev.firkin.seccomp.bpf": base64.b64encode(self.bpf).decode("ascii"),
            "dev.firkin.seccomp.flags": str(self.flags),
        }


def lower(
    options: ContainerOptions,
    image: ImageConfig,
    *,
    container_id: ContainerId,
    seccomp: SeccompProgram | None = None,
    extra_mounts: Iterable[SpecMount] = (),
    limit_resources: bool = False,
) -> RuntimeSpec:
    """The runtime specification of a container.

    `seccomp` is the filter compiled for these options (`seccomp_cache.program_for`), `None` for none. `extra_mounts`
    come after all others (the engine's `/etc/hosts` and the like). `limit_resources` puts `cpus` and `memory` on the
    container's cgroup too, where it shares its VM. Raises `InvalidInputError` for options that fit no program,
    `ImageError` for a config that does not hold up.
    """
    privileged = options.privileged
    annotations = resolve_labels(options, image)
    process = _first_process(options, image, resolve_hostname(options, container_id))
    annotations |= process_annotations(options, process.env)
    if seccomp is not None:
        annotations |= seccomp.annotations()
    if options.use_init:
        annotations["dev.firkin.init"] = "1"
    masked = MASKED_PATHS if options.masked_paths is None and not privileged else options.masked_paths
    readonly = READONLY_PATHS if options.readonly_paths is None and not privileged else options.readonly_paths
    return RuntimeSpec(
        process=process,
        root=Root(rootfs_path(container_id), options.read_only),
        hostname=resolve_hostname(options, container_id),
        mounts=(*_mounts(options), *extra_mounts),
        linux=Linux(
            namespaces=_NAMESPACES,
            cgroups_path=f"/firkin/{container_id}",
            resources=_resources(options, limit_resources),
            masked_paths=masked or (),
            readonly_paths=readonly or (),
            sysctl=dict(sorted((key.replace("/", "."), value) for key, value in options.sysctl.items())),
        ),
        annotations=dict(sorted(annotations.items())),
    )


def renamed(spec: RuntimeSpec, hostname: str) -> RuntimeSpec:
    """As if the container had been lowered under this host name."""
    env = tuple(f"HOSTNAME={hostname}" if line == f"HOSTNAME={spec.hostname}" else line for line in spec.process.env)
    return spec._replace(hostname=hostname, process=spec.process._replace(env=env))


def resolve_hostname(options: ContainerOptions, container_id: ContainerId) -> Hostname:
    """The name given, else one made of the id."""
    return options.hostname or Hostname(container_id.default_hostname())


def resolve_stop_signal(options: ContainerOptions, image: ImageConfig) -> Signal:
    """The signal that asks the container to stop: given, else the image's, else SIGTERM. Raises `ImageError`."""
    if options.stop_signal is not None:
        return options.stop_signal
    if not image.stop_signal:
        return Signal.parse("TERM")
    try:
        return Signal.parse(image.stop_signal)
    except InvalidInputError as error:
        raise ImageError(
            f"the image's stop signal {image.stop_signal!r} is unknown", hint="give --stop-signal"
        ) from error


def resolve_labels(options: ContainerOptions, image: ImageConfig) -> dict[str, str]:
    """The image's labels with the user's over them."""
    return {**image.labels, **options.labels}


def merge_env(base: Iterable[str], changes: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """`base` (`NAME=value`) with `changes` by name: `None` takes one away.

    Those of `base` keep their places, new ones follow by name, so that the order of `changes` makes no difference
    beyond the last one of a name winning. An entry of `base` without `=` is skipped: it sets nothing.
    """
    merged = dict(entry.split("=", 1) for entry in base if entry.find("=") > 0)
    for name, value in sorted(dict(changes).items()):
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged


def join_env(env: Mapping[str, str]) -> tuple[str, ...]:
    """`NAME=value` of each."""
    return tuple(f"{name}={value}" for name, value in env.items())


def process_annotations(options: ProcessOptions, env: tuple[str, ...]) -> dict[str, str]:
    """What vmexec needs to know about a process beyond the specification: named groups, and whether to look up HOME."""
    annotations = {}
    if names := [group for group in further_groups(options) if not group.isdigit()]:
        annotations["dev.firkin.group_add"] = ",".join(names)
    if not any(entry.startswith("HOME=") for entry in env):
        annotations["dev.firkin.env.home"] = "1"
    return annotations


def further_groups(options: ProcessOptions) -> tuple[str, ...]:
    """Names and gids beside the user's own groups, in one order however they were given."""
    return tuple(sorted({*(options.user.groups if options.user is not None else ()), *options.group_add}))


def lower_user(options: ProcessOptions, image_user: str = "") -> ProcessUser:
    """The user of the specification: `username` holds what the guest looks up in the container's own files.

    Root, too, is looked up (as `0`), because images give it further groups. Numbers on both sides need no look-up.
    """
    chosen = options.user if options.user is not None and str(options.user) else _image_user(image_user)
    gids = tuple(int(group) for group in further_groups(options) if group.isdigit())
    if chosen.user.isdigit() and chosen.group.isdigit():
        return ProcessUser(int(chosen.user), int(chosen.group), additional_gids=gids)
    return ProcessUser(additional_gids=gids, username=str(chosen) or "0")


def _image_user(text: str) -> User:
    try:
        return User.parse(text)
    except InvalidInputError as error:
        raise ImageError(f"the image's user {text!r} is not valid", hint="give --user") from error


def console(options: ProcessOptions) -> Box | None:
    """The size of the terminal, where there is one."""
    return Box(options.pty_size.rows, options.pty_size.columns) if options.terminal else None


def _first_process(options: ContainerOptions, image: ImageConfig, hostname: str) -> Process:
    return Process(
        args=_arguments(options, image),
        cwd=options.working_dir or _image_cwd(image.working_dir),
        env=_environment(options, image.env, hostname),
        user=lower_user(options, image.user),
        terminal=options.terminal,
        console_size=console(options),
        capabilities=effective_capabilities(
            options.capabilities, options.cap_add, options.cap_drop, privileged=options.privileged
        ),
        rlimits=tuple(sorted(options.rlimits, key=lambda limit: limit.kind)),
        no_new_privileges=bool(options.no_new_privileges),
        oom_score_adj=options.oom_score_adj,
        apparmor_profile=options.apparmor_profile,
        selinux_label=options.selinux_label,
    )


def _arguments(options: ContainerOptions, image: ImageConfig) -> tuple[str, ...]:
    entrypoint = image.entrypoint if options.entrypoint is None else options.entrypoint
    cmd = image.cmd if options.entrypoint is None else ()
    arguments = (*entrypoint, *(options.command or cmd))
    if not arguments or not arguments[0]:
        raise InvalidInputError("no command was given and the image has none", hint="name a program to run")
    return arguments


def _environment(options: ContainerOptions, image_env: tuple[str, ...], hostname: str) -> tuple[str, ...]:
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if options.terminal:
        defaults.append(f"TERM={_TERM}")
    return join_env(merge_env([*defaults, *image_env], options.env))


def _image_cwd(text: str) -> str:
    """The image's working directory as Docker reads it: cleaned, below `/` where it is relative."""
    return GuestPath(posixpath.normpath("/" + text.replace("\0", "")).replace("//", "/")) if text else "/"


def _mounts(options: ContainerOptions) -> Iterable[SpecMount]:
    """Docker's, which config-linux.md, "Default Filesystems", asks for, with the user's; the shallow first."""
    ro = () if options.privileged else ("ro",)
    shm = ("nosuid", "noexec", "nodev", "mode=1777", f"size={int(options.shm_size)}")
    defaults = (
        SpecMount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        SpecMount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        SpecMount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", *ro)),
        SpecMount("/dev/pts", "devpts", "devpts", _DEVPTS),
        SpecMount("/dev/shm", "tmpfs", "shm", shm),
        SpecMount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
        SpecMount("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", *ro)),
    )
    given = [*options.mounts, *(file.as_mount() for file in options.file_mounts)]
    return by_depth(defaults, [mount.lowered() for mount in given]) if given else defaults


_DEVPTS = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")


def by_depth(defaults: Iterable[SpecMount], given: Iterable[SpecMount]) -> tuple[SpecMount, ...]:
    """The mounts in the order to make them: one given replaces a default at the same place; the shallow come first.

    Among those of one depth, defaults come first in their own order, then the given by their destination.
    Raises `InvalidInputError` for two given at one place.
    """
    users: dict[str, SpecMount] = {}
    for mount in given:
        if mount.destination in users:
            raise InvalidInputError(
                f"two mounts at {mount.destination}", value=mount, hint="give each destination once"
            )
        users[mount.destination] = mount
    kept = [mount for mount in defaults if mount.destination not in users]
    return tuple(
        sorted([*kept, *(users[place] for place in sorted(users))], key=lambda mount: mount.destination.count("/"))
    )


def _resources(options: ContainerOptions, limit_resources: bool) -> Resources | None:
    # A VM has whole processors; a fraction is the cgroup's to enforce.
    quota = int(options.cpus * _CPU_PERIOD_US) if limit_resources or options.cpus != options.vcpus else 0
    memory = int(options.memory) if limit_resources else 0
    if not (quota or memory or options.pids_limit):
        return None
    return Resources(
        memory=MemoryResources(memory, memory) if memory else None,
        cpu=CpuResources(quota, _CPU_PERIOD_US) if quota else None,
        pids=PidsResources(options.pids_limit) if options.pids_limit else None,
    )
