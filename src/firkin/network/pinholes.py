"""Addresses that an allowed name has now: each may be reached for as long as its answer said."""

from __future__ import annotations

from collections import OrderedDict

from firkin.network.policy import Policy

__all__ = ["Pinholes"]

_MOST = 4096


class Pinholes:
    """A bounded table of address to name and end; where it is full the address that was opened first goes."""

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def open(self, address: bytes, name: str, until: float) -> None:
        """Open `address` until that time; never sooner than before."""
        had, _ = self._open.pop(address, (0.0, ""))
        self._open[address] = (max(had, until), name)
        if len(self._open) > _MOST:
            self._open.popitem(last=False)

    def __contains__(self, key: tuple[bytes, float]) -> bool:
        address, now = key
        until, _ = self._open.get(address, (0.0, ""))
        return until > now

    def name(self, address: bytes) -> str:
        """The name by which `address` was opened last; empty where none was."""
        return self._open.get(address, (0.0, ""))[1]

    def keep(self, policy: Policy) -> None:
        """Close what a new policy does not allow by name any more."""
        named = {name for _, name in self._open.values() if policy.listed and policy.allows_name(name)}
        closed = [address for address, (_, name) in self._open.items() if name not in named]
        for address in closed:
            del self._open[address]
