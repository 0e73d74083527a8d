"""The options of `firkin run`, `create` and `exec`, with Docker's names and meanings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from firkin.errors import InvalidInputError
from firkin.types import Stdio

if TYPE_CHECKING:
    from firkin.core.option_inputs import OptionInputs

__all__ = ["container_flags", "inputs_from", "process_flags", "read_env"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_LARGEST_FILE = 1 << 20
# Microseconds; Docker's.
_CPU_PERIOD = 100_000


def _flag(*names: str, help: str) -> Callable[[_Command], _Command]:
    return click.option(*names, is_flag=True, help=help)


def _one(*names: str, help: str, metavar: str = "TEXT", type: Any = str) -> Callable[[_Command], _Command]:
    return click.option(*names, default=None, metavar=metavar, type=type, help=help)


def _many(*names: str, help: str, metavar: str = "TEXT") -> Callable[[_Command], _Command]:
    return click.option(*names, multiple=True, metavar=metavar, help=help)


_PROCESS = (
    _flag("-i", "--interactive", help="Connect standard input."),
    _flag("-t", "--tty", help="Give the process a terminal."),
    _many("-e", "--env", metavar="NAME[=VALUE]", help="Set a variable; a name alone takes the value it has here."),
    _many("--env-file", metavar="FILE", help="Read variables from a file, one NAME[=VALUE] a line."),
    _one("-w", "--workdir", metavar="PATH", help="Directory to start in; made if it is missing."),
    _one("-u", "--user", metavar="USER[:GROUP]", help="Name or uid, and name or gid."),
    _many("--group-add", metavar="GROUP", help="A further group of the user."),
    _flag("--privileged", help="Lift every restriction inside the VM."),
    _many("--cap-add", metavar="CAP", help="Add a capability, or ALL."),
    _many("--cap-drop", metavar="CAP", help="Drop a capability, or ALL."),
    _many("--ulimit", metavar="KIND=SOFT[:HARD]", help="Limit a resource, as nofile=1024:2048."),
    _one(
        "--oom-score-adj", metavar="NUMBER", type=int, help="-1000 to 1000; the higher, the sooner killed for memory."
    ),
)

_CONTAINER = (
    click.option(
        "--pull",
        type=click.Choice(["always", "missing", "never"]),
        default=None,
        help="When to ask the image's registry (default: missing).",
    ),
    _one("--platform", metavar="OS/ARCH", help="Which of an image's platforms (default: this host's)."),
    _one("--entrypoint", metavar="PROGRAM", help="In place of the image's entrypoint; empty for none."),
    _one("-h", "--hostname", metavar="NAME", help="The name inside (default: made of the container's)."),
    _flag("--init", help="Run a tiny init as process 1, which forwards signals and reaps."),
    _many("-l", "--label", "--annotation", metavar="KEY[=VALUE]", help="Set a label."),
    _many("--label-file", metavar="FILE", help="Read labels from a file, one KEY[=VALUE] a line."),
    _one("--stop-signal", metavar="SIGNAL", help="What asks the container to stop (default: the image's, or TERM)."),
    _one("--stop-timeout", metavar="SECONDS", type=float, help="How long to wait before the kill (default: 10)."),
    _many("--security-opt", metavar="OPTION", help="seccomp=FILE|unconfined, apparmor=, label=, no-new-privileges, …"),
    _many("--sysctl", metavar="KEY=VALUE", help="Set a parameter of the VM's kernel."),
    _flag("--read-only", help="Mount the root filesystem read-only."),
    _many("-v", "--volume", metavar="[SOURCE:]PATH[:OPTIONS]", help="Mount a folder, a file or a volume."),
    _many("--mount", metavar="KEY=VALUE,…", help="Mount: type=bind|volume|tmpfs|image,source=…,destination=…"),
    _many("--tmpfs", metavar="PATH[:OPTIONS]", help="Mount a tmpfs, as /run:size=64m."),
    _one("--shm-size", metavar="SIZE", help="Size of /dev/shm (default: 64m)."),
    _one("--pids-limit", metavar="NUMBER", type=int, help="The most processes and threads; -1 for no limit."),
    _one("--device-read-bps", "--read-bps", metavar="[DEVICE:]SIZE", help="Bytes a second that the root's disk gives."),
    _one("--device-write-bps", "--write-bps", metavar="[DEVICE:]SIZE", help="Bytes a second that it takes."),
    _one("--device-read-iops", "--read-iops", metavar="[DEVICE:]NUMBER", help="Reads a second from it."),
    _one("--device-write-iops", "--write-iops", metavar="[DEVICE:]NUMBER", help="Writes a second to it."),
    _one("--cpus", metavar="NUMBER", type=float, help="Processors (default: 2); fractions allowed."),
    _one("--cpu-quota", metavar="MICROSECONDS", type=int, help="Processors, as Docker's quota for a period."),
    _one("--cpu-period", metavar="MICROSECONDS", type=int, help="The period of --cpu-quota (default: 100000)."),
    _one("-m", "--memory", metavar="SIZE", help="Memory of the VM (default: 512m)."),
    _one("--disk", metavar="SIZE", help="Room of the root filesystem (default: 16g)."),
    _one("--writable-layer", metavar="FILE", help="A disk image that keeps what the container writes."),
)

_NETWORK = (
    click.option(
        "--network", "--net", type=click.Choice(["nat", "none"]), default=None, help="The network (default: nat)."
    ),
    _many("-p", "--publish", metavar="[IP:][HOST:]GUEST[/udp]", help="Publish a port, on 127.0.0.1 by default."),
    _many("--dns", metavar="ADDRESS", help="A name server."),
    _many("--dns-search", metavar="DOMAIN", help="A search domain."),
    _many("--dns-option", "--dns-opt", metavar="OPTION", help="An option of resolv.conf."),
    _many("--add-host", metavar="NAME:ADDRESS", help="A line of /etc/hosts."),
    _many("--allow-net", metavar="CIDR[:PORT[/PROTO]]", help="Reach only this, and what else is allowed."),
    _many("--deny-net", metavar="CIDR[:PORT[/PROTO]]", help="Never reach this; `all` for everything."),
    _many("--allow-domain", metavar="NAME", help="Reach only this name, or all below it by *.NAME."),
    click.option("--expose", multiple=True, hidden=True, expose_value=False),
    _one("--mac-address", metavar="ADDRESS", help="Address of the network card."),
    _one("--mtu", metavar="BYTES", type=int, help="Largest packet of the network card (default: 65520)."),
    _many("--socket", metavar="HOST:GUEST[:mode=…]", help="Relay a Unix socket of the host into the guest."),
    _many("--publish-socket", metavar="GUEST:HOST[:mode=…]", help="Relay a Unix socket of the guest out to the host."),
)

_MACHINE = (
    click.option(
        "--emulate/--no-emulate", default=None, help="Run an image of another architecture (default: if it is)."
    ),
    _flag("--nested", help="Offer hardware virtualization inside."),
    _one("--kernel", metavar="FILE", help="Another kernel."),
    _many("--kernel-arg", metavar="ARGUMENT", help="Add to the kernel's command line."),
    _one("--boot-log", metavar="FILE", help="Append the console to a file."),
    _one("--cpu-model", metavar="MODEL", help="QEMU's CPU model."),
    click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default=None, help="How to run the VM."),
    _flag("--no-fork", help="Boot, in place of forking a base VM."),
    _flag("--warm", help="Fork a saved VM that has the image mounted; made at the first use (firkin image warm)."),
)


def process_flags(command: _Command) -> _Command:
    """Options of `firkin exec`."""
    return _all(command, _PROCESS)


def container_flags(command: _Command) -> _Command:
    """Options of `firkin run` and `firkin create`: a process's, a container's, its network's and its VM's."""
    return _all(command, (*_PROCESS, *_CONTAINER, *_NETWORK, *_MACHINE))


def _all(command: _Command, options: Iterable[Callable[[_Command], _Command]]) -> _Command:
    for option in reversed(tuple(options)):
        command = option(command)
    return command


def inputs_from(flags: Mapping[str, Any]) -> OptionInputs:
    """The inputs of `container_options` (of `ExecConfig.of` for `process_flags`) that the flags mean.

    Standard output and error are the caller's own; standard input with `-i`. Raises `InvalidInputError`.
    """
    given = {name: value for name, value in flags.items() if value not in (None, ()) and value is not False}
    inputs: dict[str, Any] = {_SAME[name]: given[name] for name in _SAME if name in given}
    inputs["stdout"] = inputs["stderr"] = Stdio.INHERIT
    if given.get("interactive"):
        inputs["stdin"] = Stdio.INHERIT
    if given.get("tty"):
        from firkin.core.attach import terminal_size

        inputs["pty_size"] = terminal_size()
    env = read_env(given.get("env_file", ()), given.get("env", ()))
    if env:
        inputs["env"] = env
    if labels := _labels(given):
        inputs["labels"] = labels
    if "sysctl" in given:
        inputs["sysctl"] = dict(_pair(text, "sysctl") for text in given["sysctl"])
    if flags.get("entrypoint") is not None:
        inputs["entrypoint"] = flags["entrypoint"]
    if flags.get("emulate") is not None:
        inputs["emulate"] = flags["emulate"]
    if given.get("pids_limit", 0) > 0:
        inputs["pids_limit"] = given["pids_limit"]
    inputs |= _disk_rates(given)
    if "cpu_quota" in given and "cpus" not in given:
        inputs["cpus"] = given["cpu_quota"] / (given.get("cpu_period") or _CPU_PERIOD)
    if given.get("no_fork"):
        inputs["fork"] = False
    if "volume" in given or "mount" in given:
        inputs["mounts"] = _mounts(given)
    if "security_opt" in given:
        inputs |= _security(given["security_opt"])
    return cast("OptionInputs", inputs | _names(given) | _sockets(given))


# Flags whose value an input takes as it is.
_SAME = {
    "tty": "terminal",
    "workdir": "working_dir",
    "user": "user",
    "group_add": "group_add",
    "privileged": "privileged",
    "cap_add": "cap_add",
    "cap_drop": "cap_drop",
    "ulimit": "rlimits",
    "oom_score_adj": "oom_score_adj",
    "warm": "warm",
    "pull": "pull",
    "platform": "platform",
    "hostname": "hostname",
    "init": "use_init",
    "stop_signal": "stop_signal",
    "stop_timeout": "stop_timeout",
    "read_only": "read_only",
    "tmpfs": "tmpfs",
    "shm_size": "shm_size",
    "cpus": "cpus",
    "memory": "memory",
    "disk": "disk",
    "writable_layer": "writable_layer",
    "network": "network",
    "publish": "publish",
    "add_host": "hosts",
    "mac_address": "mac_address",
    "mtu": "mtu",
    "allow_net": "allow_net",
    "deny_net": "deny_net",
    "allow_domain": "allow_domain",
    "nested": "nested",
    "kernel": "kernel",
    "kernel_arg": "cmdline_extra",
    "boot_log": "boot_log",
    "cpu_model": "cpu_model",
    "accel": "accel",
}


def read_env(
    files: Iterable[str], variables: Iterable[str], environ: Mapping[str, str] = os.environ
) -> dict[str, str | None]:
    """What `--env-file` and `--env` set, the files first; `None` for a name alone that `environ` does not have.

    A file has one `NAME[=VALUE]` a line, values as they stand, `#` begins a line of comment. Raises
    `InvalidInputError`.
    """
    found: dict[str, str | None] = {}
    for text in [*(line for file in files for line in _lines(file)), *variables]:
        name, equals, value = text.partition("=")
        if not name or any(character.isspace() for character in name):
            raise InvalidInputError(f"{text!r} names no environment variable", value=text, hint="write NAME=VALUE")
        found[name] = value if equals else environ.get(name)
    return found


def _lines(file: str) -> list[str]:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidInputError(f"{file} can't be read: {error.strerror}", value=file) from error
    if len(content) > _LARGEST_FILE:
        raise InvalidInputError(f"{file} is too long", value=file, hint=f"at most {_LARGEST_FILE} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file} is not UTF-8", value=file) from error
    lines = (line.lstrip().removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def _labels(given: Mapping[str, Any]) -> dict[str, str]:
    lines = [line for file in given.get("label_file", ()) for line in _lines(file)]
    labels = {}
    for text in [*lines, *given.get("label", ())]:
        key, _, value = text.partition("=")
        if not key:
            raise InvalidInputError(f"{text!r} is not a label", value=text, hint="write KEY=VALUE")
        labels[key] = value
    return labels


def _pair(text: str, what: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInputError(f"{text!r} is not a {what}", value=text, hint="write KEY=VALUE")
    return key, value


def _disk_rates(given: Mapping[str, Any]) -> dict[str, Any]:
    """Docker's flags, too, whose device is the host's: here there is one disk that the container writes to."""
    rates: dict[str, Any] = {}
    for name in ("read_bps", "write_bps", "read_iops", "write_iops"):
        if f"device_{name}" in given:
            rate = given[f"device_{name}"].rpartition(":")[2]
            rates[name] = rate if name.endswith("bps") else _number(rate)
    return rates


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidInputError(f"{text!r} is not a number of operations a second", value=text)
    return int(text)


def _mounts(given: Mapping[str, Any]) -> list[Any]:
    from firkin.core.mount_parse import parse_mount, parse_volume

    return [*map(parse_volume, given.get("volume", ())), *map(parse_mount, given.get("mount", ()))]


def _security(options: tuple[str, ...]) -> dict[str, Any]:
    from firkin.core.policy import SecurityOptions

    chosen = SecurityOptions.parse(options)
    unmasked = {"masked_paths": (), "readonly_paths": ()} if chosen.system_paths_unconfined else {}
    return unmasked | {
        "seccomp": chosen.seccomp,
        "apparmor_profile": chosen.apparmor_profile,
        "selinux_label": chosen.selinux_label,
        "no_new_privileges": chosen.no_new_privileges,
    }


def _names(given: Mapping[str, Any]) -> dict[str, Any]:
    if not any(name in given for name in ("dns", "dns_search", "dns_option")):
        return {}
    from firkin.core.name_service import DnsConfig

    nameservers, search, options = (tuple(given.get(name, ())) for name in ("dns", "dns_search", "dns_option"))
    return {"dns": DnsConfig(nameservers, None, search, options)}


def _sockets(given: Mapping[str, Any]) -> dict[str, Any]:
    if "socket" not in given and "publish_socket" not in given:
        return {}
    from firkin.core.socket_relay import SocketRelay

    into = [SocketRelay.parse(text) for text in given.get("socket", ())]
    out = [SocketRelay.parse(text, into_guest=False) for text in given.get("publish_socket", ())]
    return {"sockets": (*into, *out)}
