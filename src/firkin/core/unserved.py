"""Options that are understood but that nothing serves yet: refused by name, before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin.errors import InvalidInputError

if TYPE_CHECKING:
    from firkin.core.options import ContainerOptions

__all__ = ["refuse_unserved"]


def refuse_unserved(options: ContainerOptions) -> None:
    """Raise `InvalidInputError` for what would otherwise be ignored, or fail obscurely in the guest."""
    for what, given in (("socket relays", options.sockets),):
        if given:
            raise InvalidInputError(f"{what} are not served yet", value=given, hint="leave the option out")
