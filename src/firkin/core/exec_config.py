"""A further process in a running container: `ExecConfig`, lowered onto what the container's first process was given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Unpack

from firkin.core.guest_root import rootfs_path
from firkin.core.lowering import (
    SeccompProgram,
    console,
    join_env,
    lower_user,
    merge_env,
    process_annotations,
)
from firkin.core.option_inputs import ExecInputs, convert
from firkin.core.policy import effective_capabilities
from firkin.core.process_options import ProcessOptions
from firkin.core.spec import Process, ProcessSpec, ProcessUser, Root, RuntimeSpec
from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types import Capability, ContainerId, LinuxCapabilities, PtySize, Rlimit, Stdio, User

__all__ = ["ExecConfig"]

_GROUPS = "dev.firkin.group_add"
# Bounds what another process may send over control.sock; a command line and environment of Linux fit (ARG_MAX is 2
# MiB).
_LARGEST_JSON = 4 << 20


@dataclass(frozen=True, kw_only=True)
class ExecConfig(ProcessOptions):
    """Options of a further process. What is unset is the container's first process's. Raises `InvalidInputError`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.command:
            raise InvalidInputError("no command was given", value=self.command, hint="name a program to run")

    @classmethod
    def of(cls, command: str | Sequence[str], **inputs: Unpack[ExecInputs]) -> ExecConfig:
        """A config of loosely typed `inputs`, as `container_options` takes them. Raises `InvalidInputError`."""
        if wrong := [name for name in inputs if name not in ExecInputs.__annotations__]:
            raise InvalidInputError(f"there is no option {wrong[0]!r} of a further process", value=wrong[0])
        return cls(**convert({"command": command, **inputs}))

    def runtime_spec(
        self, container_id: ContainerId, base: RuntimeSpec | None = None, *, seccomp: SeccompProgram | None = None
    ) -> ProcessSpec:
        """What vmexec is to run in `container_id`, whose own specification is `base`.

        The environment is the container's with this one's over it; directory, user, capabilities, limits and labels are
        the container's where unset. `seccomp`: a filter for this process; `None` keeps the container's.
        """
        first = base.process if base is not None else Process(args=self.command)
        inherited = dict(base.annotations) if base is not None else {}
        changes = dict(self.env)
        if self.terminal:
            changes = {"TERM": "xterm", **changes}
        env = join_env(merge_env(first.env, changes.items()))
        annotations = {key: value for key, value in inherited.items() if key.startswith("dev.firkin.seccomp.")}
        own = process_annotations(self, env)
        if self.user is None:
            names = [inherited.get(_GROUPS, ""), own.get(_GROUPS, "")]
            own[_GROUPS] = ",".join(filter(None, names))
        annotations |= {key: value for key, value in own.items() if value}
        if seccomp is not None:
            annotations |= seccomp.annotations()
        process = Process(
            args=self.command,
            cwd=self.working_dir or first.cwd,
            env=env,
            user=self._user(first),
            terminal=self.terminal,
            console_size=console(self),
            capabilities=self._capabilities(first),
            rlimits=self._rlimits(first),
            no_new_privileges=first.no_new_privileges if self.no_new_privileges is None else self.no_new_privileges,
            oom_score_adj=first.oom_score_adj if self.oom_score_adj is None else self.oom_score_adj,
            apparmor_profile=self.apparmor_profile or first.apparmor_profile,
            selinux_label=self.selinux_label or first.selinux_label,
        )
        return ProcessSpec(
            process=process,
            annotations=dict(sorted(annotations.items())),
            root=Root(rootfs_path(container_id)),
            hostname=base.hostname if base is not None else container_id.default_hostname(),
        )

    def _user(self, first: Process) -> ProcessUser:
        if self.user is not None:
            return lower_user(self)
        gids = tuple(int(group) for group in self.group_add if group.isdigit())
        return first.user._replace(additional_gids=(*first.user.additional_gids, *gids))

    def _capabilities(self, first: Process) -> LinuxCapabilities:
        held = self.capabilities or (None if self.privileged else first.capabilities)
        return effective_capabilities(held, self.cap_add, self.cap_drop, privileged=self.privileged)

    def _rlimits(self, first: Process) -> tuple[Rlimit, ...]:
        by_kind = {limit.kind: limit for limit in (*first.rlimits, *self.rlimits)}
        return tuple(by_kind[kind] for kind in sorted(by_kind))

    def to_json(self) -> str:
        """For `firkin.control.v1.Exec`; fields that have their default are left out."""
        plain = {
            field.name: _plain(getattr(self, field.name))
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ExecConfig:
        """The config that `to_json` wrote. Raises `InvalidInputError` for anything else."""
        if len(text) > _LARGEST_JSON:
            raise InvalidInputError("the exec config is too long", value=len(text))
        try:
            document = json.loads(text)
            given = {name: _typed(name, value) for name, value in document.items()}
            return cls(**convert(given))
        except InvalidInputError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError("the exec config is not what Firkin writes", value=text[:200]) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Stdio):
        return value.value
    if isinstance(value, LinuxCapabilities):
        return {name: getattr(value, name) for name in LinuxCapabilities.__slots__}
    if isinstance(value, (User, PtySize, Rlimit)):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _typed(name: str, value: Any) -> Any:
    """`value` of a JSON document checked for its kind; `convert` does the rest."""
    if name in ("stdin", "stdout", "stderr"):
        return Stdio(value)
    if name == "capabilities":
        return LinuxCapabilities(**{key: tuple(map(Capability.parse, _texts(names))) for key, names in value.items()})
    if name == "env":
        return {str(key): content if content is None else str(content) for key, content in value}
    if name in ("privileged", "terminal", "no_new_privileges"):
        return _of(bool, value)
    if name == "oom_score_adj":
        return _of(int, value)
    return _texts(value) if isinstance(value, list) else _of(str, value)


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _texts(values: Any) -> list[str]:
    return [_of(str, value) for value in _of(list, values)]
