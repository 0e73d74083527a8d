"""The image configuration (OCI config.md): what a container of the image runs by default, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from firkin.errors import ImageError, InvalidInputError
from firkin.frozen import dataclass
from firkin.oci._json import mapping, number, optional_text, parse_object, text_list, text_map
from firkin.types.digest import Digest
from firkin.types.platform import Platform

__all__ = ["History", "ImageConfig"]

_HISTORY_MAX = 4096


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class History:
    """One step of how the image was made. `empty_layer` is true where it added no layer."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A checked image configuration. Absent fields are empty.

    `env` holds `NAME=value`; `exposed_ports` holds `80/tcp`; `created` is RFC 3339 text; `diff_ids` are the digests
    of the uncompressed layers, the lowest first.
    """

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=_nothing)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    architecture: str = ""
    variant: str = ""
    os: str = "linux"
    stop_timeout: int | None = None
    shell: tuple[str, ...] = ()

    @classmethod
    def parse(cls, content: bytes) -> ImageConfig:
        """Read a configuration's JSON. Raises `ImageError` where a field is not of its type."""
        document = parse_object(content, "the image's config")
        rootfs = mapping(document, "rootfs")
        run = mapping(document, "config")
        timeout = run.get("StopTimeout")
        return cls(
            env=text_list(run, "Env"),
            entrypoint=text_list(run, "Entrypoint"),
            cmd=text_list(run, "Cmd"),
            user=optional_text(run, "User"),
            working_dir=optional_text(run, "WorkingDir"),
            stop_signal=optional_text(run, "StopSignal"),
            labels=MappingProxyType(text_map(run, "Labels")),
            exposed_ports=tuple(sorted(mapping(run, "ExposedPorts"))),
            volumes=tuple(sorted(mapping(run, "Volumes"))),
            diff_ids=tuple(_digest(text) for text in text_list(rootfs, "diff_ids")),
            history=_history(document.get("history")),
            created=optional_text(document, "created"),
            author=optional_text(document, "author"),
            architecture=optional_text(document, "architecture"),
            variant=optional_text(document, "variant"),
            os=optional_text(document, "os") or "linux",
            stop_timeout=None if timeout is None else number(run, "StopTimeout"),
            shell=text_list(run, "Shell"),
        )

    def document(self) -> dict[str, Any]:
        """The configuration as JSON has it, without the fields that are empty."""
        run: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Env": list(self.env),
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Volumes": {path: {} for path in self.volumes},
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "StopSignal": self.stop_signal,
            "StopTimeout": self.stop_timeout,
            "Shell": list(self.shell),
        }
        head = {"created": self.created, "author": self.author, "architecture": self.architecture, "os": self.os}
        if self.variant:
            head["variant"] = self.variant
        return {
            **{key: value for key, value in head.items() if value},
            "config": {key: value for key, value in run.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [str(digest) for digest in self.diff_ids]},
            "history": [_step(step) for step in self.history],
        }

    @property
    def platform(self) -> Platform:
        """The platform the image says it is for. Raises `ImageError` for one Firkin does not know."""
        try:
            return Platform(self.architecture, self.variant, self.os)
        except InvalidInputError as error:
            raise ImageError(f"the image is for {self.os}/{self.architecture}, which is not supported") from error


def _step(step: History) -> dict[str, Any]:
    fields = {"created": step.created, "created_by": step.created_by, "author": step.author, "comment": step.comment}
    document: dict[str, Any] = {key: value for key, value in fields.items() if value}
    return document | ({"empty_layer": True} if step.empty_layer else {})


def _digest(text: str) -> Digest:
    try:
        return Digest(text)
    except InvalidInputError as error:
        raise ImageError("the image's config holds a diff_id that is not a digest") from error


def _history(value: Any) -> tuple[History, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _HISTORY_MAX:
        raise ImageError("the image's config holds a history that is not a short list")
    steps = []
    for entry in value:
        if not isinstance(entry, dict):
            raise ImageError("the image's config holds a history step that is not an object")
        steps.append(
            History(
                created=optional_text(entry, "created"),
                created_by=optional_text(entry, "created_by"),
                author=optional_text(entry, "author"),
                comment=optional_text(entry, "comment"),
                empty_layer=entry.get("empty_layer") is True,
            )
        )
    return tuple(steps)
