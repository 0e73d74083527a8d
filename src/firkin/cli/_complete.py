"""Names that a shell completes: live containers, images, volumes. Imported where a shell asks, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import click
from click.shell_completion import CompletionItem

__all__ = ["completed"]


def _containers() -> Iterable[str]:
    from firkin.core.live import list_live
    from firkin.types.state import StateDirs

    return (container.id for container in list_live(StateDirs.default()))


def _images() -> Iterable[str]:
    from firkin.oci.references import ReferenceStore
    from firkin.types.state import StateDirs

    names = ReferenceStore(StateDirs.default().data / "images")
    full = [entry.reference.familiar() for entry in names if entry.reference is not None]
    return [*full, *(name.removeprefix("localhost/").removesuffix(":latest") for name in full)]


def _volumes() -> Iterable[str]:
    from firkin.core.volumes import Volume

    return (volume.name for volume in Volume.all())


# By the name of the argument, whatever the command; those of `firkin volume` are called "names".
_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "container": _containers,
    "containers": _containers,
    "image": _images,
    "reference": _images,
    "references": _images,
    "source": _images,
}


def completed(command: click.Command, group: str = "") -> click.Command:
    """`command`, and all below it, with arguments that complete the names of what is there."""
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            completed(below, command.name or name)
    for param in command.params:
        names = _volumes if group == "volume" and param.name == "names" else _NAMES.get(param.name or "")
        if isinstance(param, click.Argument) and names is not None:
            param.shell_complete = partial(_complete, names)  # type: ignore[method-assign]
    return command


def _complete(names: Callable[[], Iterable[str]], ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(set(names())) if name.startswith(incomplete)]
