"""The last step of every start: the handle, what other processes can ask of its owner, and that it is there."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from firkin.core.live import publish
from firkin.core.owner import Owner
from firkin.core.upkeep import Upkeep
from firkin.vminitd.control import ControlServer

if TYPE_CHECKING:
    from firkin.core.container import AsyncContainer
    from firkin.vmm import VmFolder

__all__ = ["assemble"]

_T = TypeVar("_T", bound="AsyncContainer")


async def assemble(kind: type[_T], folder: VmFolder, stack: AsyncExitStack, **parts: Any) -> _T:
    """A `kind` of `parts` (see `AsyncContainer`), served and listed; `stack` undoes that."""
    container = kind(**parts)
    owner = Owner(container)
    await stack.enter_async_context(ControlServer(folder.path, owner.handlers()))
    await stack.enter_async_context(owner)
    await stack.enter_async_context(Upkeep(container.vm))
    publish(folder.path, container.describe())
    return container
