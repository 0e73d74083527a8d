"""Options as people write them, `memory="1g"`, `env={"A": "B"}`, to checked `ContainerOptions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack

from firkin.core.options import ContainerOptions
from firkin.errors import FirkinError, InvalidInputError
from firkin.network.policy import Policy
from firkin.types import GuestPath, Hostname, LinuxCapabilities, Platform, PtySize, Rlimit, Signal, Size, Stdio, User

if TYPE_CHECKING:
    from firkin.core.mount import FileMount, Mount, VirtiofsShare
    from firkin.core.name_service import DnsConfig, HostsEntry
    from firkin.core.publication import PortPublication
    from firkin.core.seccomp import Seccomp
    from firkin.core.socket_relay import SocketRelay
    from firkin.oci.ensure import PullPolicy

__all__ = ["ExecInputs", "OptionInputs", "container_options", "convert"]

_T = TypeVar("_T")


class ExecInputs(TypedDict, total=False):
    """Options of a process, loosely typed; each means what `ProcessOptions` says."""

    env: Mapping[str, str | None] | Iterable[str]
    working_dir: str
    user: str | int | User
    group_add: Iterable[str | int]
    capabilities: LinuxCapabilities
    cap_add: Iterable[str]
    cap_drop: Iterable[str]
    rlimits: Iterable[Rlimit | str]
    no_new_privileges: bool
    selinux_label: str
    apparmor_profile: str
    oom_score_adj: int
    privileged: bool
    terminal: bool
    pty_size: PtySize | str
    stdin: Stdio
    stdout: Stdio
    stderr: Stdio


class OptionInputs(ExecInputs, total=False):
    """Options of a container, loosely typed; each means what `ContainerOptions` says."""

    entrypoint: str | Sequence[str] | None
    hostname: str
    stop_signal: str | int
    stop_timeout: float
    labels: Mapping[str, str]
    seccomp: Seccomp | Literal["default", "unconfined"] | Path | Mapping[str, Any]
    sysctl: Mapping[str, str]
    read_only: bool
    masked_paths: Iterable[str]
    readonly_paths: Iterable[str]
    mounts: Iterable[Mount | str]
    tmpfs: Iterable[str]
    file_mounts: Iterable[FileMount]
    virtiofs_shares: Iterable[VirtiofsShare]
    shm_size: Size | int | str
    pids_limit: int
    read_bps: Size | int | str
    write_bps: Size | int | str
    read_iops: int
    write_iops: int
    use_init: bool
    pull: PullPolicy
    platform: Platform | str
    cpus: float
    memory: Size | int | str
    disk: Size | int | str
    writable_layer: str | Path
    emulate: bool
    nested: bool
    kernel: str | Path
    cmdline_extra: str | Iterable[str]
    boot_log: str | Path
    cpu_model: str
    accel: str
    fork: bool
    warm: bool
    network: Literal["nat", "none"]
    dns: DnsConfig
    hosts: Iterable[HostsEntry | str]
    publish: Iterable[PortPublication | str]
    mac_address: str
    mtu: int
    policy: Policy
    allow_net: Iterable[str]
    deny_net: Iterable[str]
    allow_domain: Iterable[str]
    sockets: Iterable[SocketRelay]


def container_options(command: str | Sequence[str] = (), **inputs: Unpack[OptionInputs]) -> ContainerOptions:
    """Checked options of `inputs`; what is `None` or left out is unset.

    Raises `InvalidInputError` that names the wrong one.
    """
    return ContainerOptions(**convert({"command": command, **inputs}))


def convert(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Each of `inputs` as the strict type of its field; `tmpfs` joins `mounts`, what is allowed and denied is a policy.

    Raises `InvalidInputError` for an unknown name, and a value of a type that can't be it.
    """
    converted = {}
    for name, value in inputs.items():
        if value is None:
            continue
        converter = _CONVERTERS.get(name)
        if converter is None:
            raise InvalidInputError(f"there is no option {name!r}", value=name)
        try:
            converted[name] = converter(value)
        except FirkinError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"{name} can't be {value!r}", value=value) from error
    if tmpfs := converted.pop("tmpfs", ()):
        converted["mounts"] = (*converted.get("mounts", ()), *tmpfs)
    if rules := {name: converted.pop(name) for name in _RULES if name in converted}:
        converted["policy"] = Policy.of(**rules)
    return converted


def _a(kind: type[_T], value: Any) -> _T:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _flag(value: Any) -> bool:
    return _a(bool, value)


def _text(value: Any) -> str:
    return _a(str, value)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def _words(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(word) for word in value)


def _entrypoint(value: str | Iterable[str]) -> tuple[str, ...]:
    return () if value == "" else _words(value)


def _env(value: Mapping[str, str | None] | Iterable[str]) -> tuple[tuple[str, str | None], ...]:
    if isinstance(value, Mapping):
        return tuple((_text(name), content if content is None else _text(content)) for name, content in value.items())
    pairs: dict[str, str | None] = {}
    for entry in value:
        name, equals, content = entry.partition("=")
        if not equals:
            raise InvalidInputError(
                f"the environment variable {entry!r} has no value", value=entry, hint="write NAME=VALUE"
            )
        pairs[name] = content
    return tuple(pairs.items())


def _user(value: str | int | User) -> User:
    return value if isinstance(value, User) else User.parse(str(value))


def _frozen(value: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({str(key): str(item) for key, item in value.items()})


def _tmpfs(text: str) -> Mount:
    from firkin.core.mount_parse import parse_tmpfs

    return parse_tmpfs(_text(text))


def _mount(value: Mount | str) -> Mount:
    from firkin.core.mount import Mount
    from firkin.core.mount_parse import parse_mount, parse_volume

    if isinstance(value, Mount):
        return value
    return parse_mount(value) if _text(value).split(",")[0].partition("=")[0] in _MOUNT_KEYS else parse_volume(value)


_MOUNT_KEYS = frozenset(("type", "source", "src", "destination", "dst", "target", "readonly", "ro"))


def _file_mount(value: FileMount) -> FileMount:
    from firkin.core.mount import FileMount

    return _a(FileMount, value)


def _share(value: VirtiofsShare) -> VirtiofsShare:
    from firkin.core.mount import VirtiofsShare

    return _a(VirtiofsShare, value)


def _socket(value: SocketRelay) -> SocketRelay:
    from firkin.core.socket_relay import SocketRelay

    return _a(SocketRelay, value)


def _dns(value: DnsConfig) -> DnsConfig:
    from firkin.core.name_service import DnsConfig

    return _a(DnsConfig, value)


def _host(value: HostsEntry | str) -> HostsEntry:
    from firkin.core.name_service import HostsEntry

    return value if isinstance(value, HostsEntry) else HostsEntry.parse(value)


def _publications(values: Iterable[PortPublication | str]) -> tuple[PortPublication, ...]:
    from firkin.core.publication import PortPublication

    parsed = ((value,) if isinstance(value, PortPublication) else PortPublication.parse(value) for value in values)
    return tuple(publication for several in parsed for publication in several)


def _seccomp(value: Seccomp | str | Path | Mapping[str, Any]) -> Seccomp | str:
    if value in ("default", "unconfined"):
        return str(value)
    from firkin.core.seccomp import Seccomp

    if isinstance(value, Seccomp):
        return value
    return Seccomp.from_json(value) if isinstance(value, Mapping) else Seccomp.load(value)


def _each(convert_one: Callable[[Any], Any]) -> Callable[[Iterable[Any]], tuple[Any, ...]]:
    return lambda values: tuple(convert_one(value) for value in values)


_RULES = ("allow_net", "deny_net", "allow_domain")
_FLAGS = "no_new_privileges privileged terminal read_only use_init emulate nested fork warm"
_TEXTS = "selinux_label apparmor_profile pull cpu_model accel network mac_address"
_NUMBERS = "cpus mtu oom_score_adj pids_limit read_iops stop_timeout write_iops"

_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_FLAGS.split(), _flag),
    **dict.fromkeys(_TEXTS.split(), _text),
    **dict.fromkeys(_NUMBERS.split(), _number),
    **dict.fromkeys(("stdin", "stdout", "stderr"), partial(_a, Stdio)),
    **dict.fromkeys(_RULES, _words),
    "capabilities": partial(_a, LinuxCapabilities),
    "policy": partial(_a, Policy),
    "dns": _dns,
    "command": _words,
    "entrypoint": _entrypoint,
    "env": _env,
    "working_dir": GuestPath,
    "user": _user,
    "group_add": _each(str),
    "cap_add": _words,
    "cap_drop": _words,
    "rlimits": _each(lambda value: value if isinstance(value, Rlimit) else Rlimit.parse(value)),
    "pty_size": lambda value: value if isinstance(value, PtySize) else PtySize.parse(value),
    "hostname": Hostname,
    "stop_signal": Signal.parse,
    "labels": _frozen,
    "seccomp": _seccomp,
    "sysctl": _frozen,
    "masked_paths": _each(GuestPath),
    "readonly_paths": _each(GuestPath),
    "mounts": _each(_mount),
    "tmpfs": _each(_tmpfs),
    "file_mounts": _each(_file_mount),
    "virtiofs_shares": _each(_share),
    "platform": lambda value: value if isinstance(value, Platform) else Platform.parse(value),
    "shm_size": Size.parse,
    "read_bps": Size.parse,
    "write_bps": Size.parse,
    "memory": Size.parse,
    "disk": Size.parse,
    "writable_layer": Path,
    "kernel": Path,
    "boot_log": Path,
    "cmdline_extra": _words,
    "hosts": _each(_host),
    "publish": _publications,
    "sockets": _each(_socket),
}
