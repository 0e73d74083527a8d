"""The addresses inside: the same in every VM, each of which is alone on its own wire.

192.0.0.0/29 is set aside for translation inside one host (RFC 7335), so no network that a guest may want to reach has
it. The IPv6 prefix is a unique local one (RFC 4193) that nobody else uses.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from firkin.frozen import dataclass

__all__ = ["GATEWAY_MAC", "GUEST_CIDR4", "GUEST_CIDR6", "INSIDE", "LARGEST_MTU", "LEAST_MTU", "Side", "random_mac"]

LARGEST_MTU: Final = 65_520
"""What a frame of QEMU's stream can carry, in whole words; few large frames cost an emulated guest the least."""

LEAST_MTU: Final = 1_280
"""IPv6 needs it (RFC 8200, section 5)."""

GATEWAY_MAC: Final = bytes.fromhex("0266726b0001")


@dataclass(frozen=True, slots=True)
class Side:
    """The addresses of one IP version; `gateway` stands for the host's `loopback` where a policy allows that."""

    guest: bytes
    gateway: bytes
    prefix: int
    loopback: bytes

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return socket.AF_INET if len(self.guest) == 4 else socket.AF_INET6

    @property
    def guest_cidr(self) -> str:
        """As `ip addr` takes it."""
        return f"{socket.inet_ntop(self.family, self.guest)}/{self.prefix}"

    @property
    def gateway_text(self) -> str:
        """The gateway's address as text."""
        return socket.inet_ntop(self.family, self.gateway)


_FOUR = Side(bytes((192, 0, 0, 2)), bytes((192, 0, 0, 1)), 29, bytes((127, 0, 0, 1)))
_PREFIX6 = bytes.fromhex("fd66726b00000000")
_SIX = Side(_PREFIX6 + bytes(7) + b"\2", _PREFIX6 + bytes(7) + b"\1", 64, bytes(15) + b"\1")
INSIDE: Final = {4: _FOUR, 6: _SIX}
"""By IP version."""

GUEST_CIDR4: Final = _FOUR.guest_cidr
GUEST_CIDR6: Final = _SIX.guest_cidr


def random_mac() -> str:
    """A new locally administered station address."""
    return ":".join(f"{byte:02x}" for byte in b"\x02" + os.urandom(5))
