"""Changing an image's configuration by Dockerfile instructions, as `docker import --change` does."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

from firkin.errors import InvalidInputError
from firkin.oci.config import ImageConfig

__all__ = ["apply_changes"]

_KNOWN = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR"


def apply_changes(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """`config` with each instruction of `changes` applied in turn. Raises `InvalidInputError` for an unknown one."""
    for change in changes:
        config = _apply(config, change)
    return config


def _apply(config: ImageConfig, change: str) -> ImageConfig:
    word, _, rest = change.strip().partition(" ")
    rest = rest.strip()
    word = word.upper()
    if not rest:
        raise InvalidInputError(
            f"the change {change!r} has no value", value=change, hint=f"one of {_KNOWN} and a value"
        )
    match word:
        case "CMD":
            return replace(config, cmd=_command(rest))
        case "ENTRYPOINT":
            return replace(config, entrypoint=_command(rest))
        case "USER":
            return replace(config, user=rest)
        case "WORKDIR":
            return replace(config, working_dir=rest)
        case "STOPSIGNAL":
            return replace(config, stop_signal=rest)
        case "ENV":
            merged = {item.partition("=")[0]: item.partition("=")[2] for item in config.env} | _pairs(rest, change)
            return replace(config, env=tuple(f"{name}={value}" for name, value in merged.items()))
        case "LABEL":
            return replace(config, labels=MappingProxyType({**config.labels, **_pairs(rest, change)}))
        case "EXPOSE":
            ports = {port if "/" in port else f"{port}/tcp" for port in rest.split()}
            return replace(config, exposed_ports=tuple(sorted({*config.exposed_ports, *ports})))
        case "VOLUME":
            paths = _list(rest) or tuple(rest.split())
            return replace(config, volumes=tuple(sorted({*config.volumes, *paths})))
        case _:
            raise InvalidInputError(f"{word} is not a change an image can take", value=change, hint=f"one of {_KNOWN}")


def _command(text: str) -> tuple[str, ...]:
    return _list(text) or ("/bin/sh", "-c", text)


def _list(text: str) -> tuple[str, ...]:
    try:
        value = json.loads(text)
    except ValueError:
        return ()
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else ()


def _pairs(text: str, change: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidInputError(f"the change {change!r} has an open quote", value=change) from error
    if words and "=" not in words[0]:
        name, space, value = text.partition(" ")  # The old form: ENV NAME the rest of the line.
        if not space:
            raise InvalidInputError(f"the change {change!r} is not NAME=value", value=change)
        return {name: value.strip()}
    if not all("=" in word for word in words):
        raise InvalidInputError(f"the change {change!r} is not NAME=value", value=change)
    return dict(word.split("=", 1) for word in words)
