"""Where the time of a start went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Timings"]


class Timings:
    """The phases of a start, in the order in which they ended, each in milliseconds. `str()` gives one line."""

    def __init__(self) -> None:
        self._phases: dict[str, float] = {}

    @property
    def phases(self) -> dict[str, float]:
        """Milliseconds by name; a copy."""
        return dict(self._phases)

    @property
    def total(self) -> float:
        """The sum of all phases, in milliseconds."""
        return sum(self._phases.values())

    def record(self, phase: str, milliseconds: float) -> None:
        """Add to `phase`, which begins at 0."""
        self._phases[phase] = self._phases.get(phase, 0.0) + milliseconds

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record how long the block takes, also where it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.record(name, (time.perf_counter() - began) * 1e3)

    def __str__(self) -> str:
        return ", ".join(f"{name} {took:.1f} ms" for name, took in self._phases.items())
