"""What a process is given, the container's first one and further ones alike."""

from __future__ import annotations

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types import GuestPath, LinuxCapabilities, PtySize, Rlimit, Stdio, User

__all__ = ["ProcessOptions", "check_command", "check_env"]

_PTY_SIZE = PtySize()


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ProcessOptions:
    """A process's own options. Unset (`None` or empty) takes the image's, or the container's for a further process.

    `env` pairs a name with its value, `None` takes the variable away. `group_add` holds names and gids. `privileged`
    gives every capability. `cap_add` and `cap_drop` change `capabilities`, by Docker's rules.
    Raises `InvalidInputError`.
    """

    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str | None], ...] = ()
    working_dir: GuestPath | None = None
    user: User | None = None
    group_add: tuple[str, ...] = ()
    capabilities: LinuxCapabilities | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool | None = None
    selinux_label: str = ""
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    privileged: bool = False
    terminal: bool = False
    pty_size: PtySize = _PTY_SIZE
    stdin: Stdio = Stdio.NULL
    stdout: Stdio = Stdio.NULL
    stderr: Stdio = Stdio.NULL

    def __post_init__(self) -> None:
        check_command("command", self.command)
        check_env(self.env)
        if self.oom_score_adj is not None and not -1000 <= self.oom_score_adj <= 1000:
            raise InvalidInputError(
                f"an OOM score adjustment of {self.oom_score_adj} is out of range",
                value=self.oom_score_adj,
                hint="-1000 to 1000",
            )
        kinds = [limit.kind for limit in self.rlimits]
        if len(set(kinds)) != len(kinds):
            raise InvalidInputError("a resource limit is given twice", value=self.rlimits, hint="give each kind once")
        User(groups=self.group_add)  # checks each of them


def check_command(what: str, arguments: tuple[str, ...]) -> None:
    """Raises `InvalidInputError` for what execve(2) can't pass: a NUL, or an empty program name."""
    for argument in arguments:
        if "\0" in argument:
            raise InvalidInputError(f"the {what} has a NUL in {argument!r}", value=argument)
    if arguments and not arguments[0]:
        raise InvalidInputError(f"the {what} has an empty program name", value=arguments)


def check_env(env: tuple[tuple[str, str | None], ...]) -> None:
    """Raises `InvalidInputError` for a name that is empty or has `=` or a NUL, and a value with a NUL."""
    for name, value in env:
        if not name or "=" in name or "\0" in name:
            raise InvalidInputError(f"{name!r} is not a name of an environment variable", value=name)
        if value is not None and "\0" in value:
            raise InvalidInputError(f"the environment variable {name} has a NUL", value=value)
