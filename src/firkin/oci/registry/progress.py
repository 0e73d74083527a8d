"""What a pull or push tells while it runs."""

from __future__ import annotations

from typing import Literal, Protocol

from firkin.oci.manifest import Descriptor

__all__ = ["NoProgress", "Outcome", "Progress"]

Outcome = Literal["done", "exists", "mounted", "waited"]


class Progress(Protocol):
    """Called from the event loop; must not block. Sizes are in bytes."""

    def started(self, blob: Descriptor, offset: int) -> None:
        """A transfer begins at `offset`; again after a broken connection."""

    def advanced(self, blob: Descriptor, offset: int) -> None:
        """The transfer has got to `offset`."""

    def finished(self, blob: Descriptor, outcome: Outcome) -> None:
        """The blob is there: `done` by this transfer, or without one (`exists`, `mounted`, `waited` for another's)."""


class NoProgress:
    """Tells nobody."""

    def started(self, blob: Descriptor, offset: int) -> None:
        """Nothing."""

    def advanced(self, blob: Descriptor, offset: int) -> None:
        """Nothing."""

    def finished(self, blob: Descriptor, outcome: Outcome) -> None:
        """Nothing."""
