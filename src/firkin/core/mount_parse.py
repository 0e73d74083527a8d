"""Mounts as the command line writes them: Docker's `--volume`, `--mount` and `--tmpfs`."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from firkin.core.mount import Mount
from firkin.core.volume_name import check_volume_name
from firkin.errors import InvalidInputError
from firkin.types import Size

__all__ = ["parse_mount", "parse_tmpfs", "parse_volume"]

_PROPAGATION = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_MODES = frozenset(("suid", "nosuid", "dev", "nodev", "exec", "noexec", "atime", "noatime", "relatime", "strictatime"))
# SELinux relabelling and the caching hints of Docker Desktop: accepted so that known command lines work, without effect
# here.
_IGNORED = frozenset(("z", "Z", "cached", "delegated", "consistent", "rbind", "bind", "rw"))
_TMPFS_NUMBERS = re.compile(
    r"(?:nr_inodes|nr_blocks|uid|gid)=\d{1,18}[kmg]?|mode=[0-7]{1,5}|huge=(?:never|always|advise|within_size)"
)
_KEYS = {"src": "source", "dst": "destination", "target": "destination", "ro": "readonly"}


def parse_volume(text: str) -> Mount:
    """Read `-v [SOURCE:]DESTINATION[:OPTIONS]`.

    A source that begins with `/`, `.` or `~` is a file or folder of the host, another a volume's name; without one the
    volume is anonymous. Raises `InvalidInputError`.
    """
    parts = text.split(":")
    if len(parts) == 1:
        return Mount.volume("", parts[0])
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise InvalidInputError(f"{text!r} is not a mount", value=text, hint="write [SOURCE:]DESTINATION[:ro]")
    source, destination, *rest = parts
    read_only, options = _options(rest[0] if rest else "", text)
    if source[0] in "/.~":
        options = [option for option in options if option != "nocopy"]
        return Mount.bind(_host_path(source), destination, read_only=read_only, options=options)
    return Mount.volume(check_volume_name(source), destination, read_only=read_only, options=options)


def parse_tmpfs(text: str) -> Mount:
    """Read `--tmpfs DESTINATION[:OPTIONS]`, options as `size=64m,mode=0755,exec`. Raises `InvalidInputError`."""
    destination, _, given = text.partition(":")
    size: Size | None = None
    read_only = False
    options = []
    for option in filter(None, given.split(",")):
        if option.startswith("size="):
            size = Size.parse(option.removeprefix("size="))
        elif option == "ro":
            read_only = True
        elif option in _MODES or _TMPFS_NUMBERS.fullmatch(option):
            options.append(option)
        elif option != "rw":
            raise InvalidInputError(
                f"{option!r} is not an option of tmpfs", value=text, hint="size=, mode=, uid=, ro, exec, …"
            )
    mount = Mount.tmpfs(destination, size=size, options=options)
    return Mount(mount.kind, mount.destination, mount.source, mount.type, mount.options, read_only)


def parse_mount(text: str) -> Mount:
    """Read `--mount type=bind|volume|tmpfs|image|block,source=…,destination=…[,readonly][,…]`, commas quoted as in CSV.

    Raises `InvalidInputError` that names the wrong key.
    """
    fields = _fields(text)
    kind = fields.pop("type", "volume")
    try:
        destination = fields.pop("destination")
    except KeyError:
        raise InvalidInputError(
            f"the mount {text!r} has no destination", value=text, hint="add destination=/PATH"
        ) from None
    source = fields.pop("source", "")
    read_only = _flag(fields.pop("readonly", "false"), text)
    mount = _mount_of(kind, source, destination, fields, text)
    if fields:
        raise InvalidInputError(f"a {kind} mount takes no {min(fields)!r}", value=text)
    return Mount(mount.kind, mount.destination, mount.source, mount.type, mount.options, mount.read_only or read_only)


def _mount_of(kind: str, source: str, destination: str, fields: dict[str, str], text: str) -> Mount:
    if kind == "bind":
        propagation = fields.pop("bind-propagation", "rprivate")
        if propagation not in _PROPAGATION:
            raise InvalidInputError(
                f"{propagation!r} is not a propagation", value=text, hint="rprivate, rshared, rslave, …"
            )
        if not source:
            raise InvalidInputError(f"the mount {text!r} has no source", value=text, hint="add source=PATH")
        return Mount.bind(_host_path(source), destination, options=[propagation])
    if kind == "volume":
        nocopy = _flag(fields.pop("volume-nocopy", "false"), text)
        return Mount.volume(
            check_volume_name(source) if source else "", destination, options=["nocopy"] if nocopy else []
        )
    if kind == "tmpfs":
        size, mode = fields.pop("tmpfs-size", ""), fields.pop("tmpfs-mode", "")
        if source:
            raise InvalidInputError("a tmpfs mount has no source", value=text)
        if mode and not re.fullmatch(r"[0-7]{1,5}", mode):
            raise InvalidInputError(f"{mode!r} are no permission bits", value=text, hint="octal, as tmpfs-mode=1777")
        return Mount.tmpfs(destination, size=Size.parse(size) if size else None, mode=int(mode, 8) if mode else None)
    if kind == "image":
        return Mount.image(source, destination)
    if kind == "block":
        return Mount.block(fields.pop("filesystem", "ext4"), _host_path(source), destination)
    raise InvalidInputError(f"{kind!r} is not a type of mount", value=text, hint="bind, volume, tmpfs, image or block")


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    try:
        parts = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise InvalidInputError(f"{text!r} is not a mount", value=text, hint="quote as in CSV") from error
    for part in parts:
        key, equals, value = part.partition("=")
        name = _KEYS.get(key, key)
        if not name or name in fields:
            raise InvalidInputError(
                f"the mount {text!r} has {key!r} twice" if name else f"{text!r} is not a mount", value=text
            )
        fields[name] = value if equals else "true"
    return fields


def _flag(value: str, text: str) -> bool:
    if value.lower() not in ("true", "1", "false", "0"):
        raise InvalidInputError(f"{value!r} is neither true nor false", value=text)
    return value.lower() in ("true", "1")


def _options(given: str, text: str) -> tuple[bool, list[str]]:
    options = [option for option in given.split(",") if option]
    for option in options:
        if option not in {"ro", "nocopy"} | _IGNORED | _PROPAGATION | _MODES:
            raise InvalidInputError(
                f"{option!r} is not an option of a mount", value=text, hint="ro, rw, noexec, rshared, …"
            )
    return "ro" in options, [option for option in options if option in _PROPAGATION | _MODES | {"nocopy"}]


def _host_path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidInputError(f"{text!r} begins with the home of nobody", value=text) from error
