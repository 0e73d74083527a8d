"""Which addresses are the public Internet's, and which are somebody's own: the host's, its neighbours', the metadata
service's.

The tables are IANA's special-purpose registries (RFC 6890 and its updates): an address is shielded unless it is known
to be global unicast.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

__all__ = ["Block", "block_of", "embedded", "parse_block"]


class Block(NamedTuple):
    """A range of addresses: the first `prefix` bits of the number `base`, of `bits` (32 or 128)."""

    base: int
    prefix: int
    bits: int

    def holds(self, address: bytes) -> bool:
        """Whether `address` is in it; never one of the other IP version."""
        if len(address) * 8 != self.bits:
            return False
        return (int.from_bytes(address, "big") ^ self.base) >> (self.bits - self.prefix) == 0

    def within(self, other: Block) -> bool:
        """Whether all of it is in `other`."""
        return self.bits == other.bits and self.prefix >= other.prefix and other.holds(self.first)

    @property
    def first(self) -> bytes:
        """Its first address, 4 or 16 bytes."""
        return self.base.to_bytes(self.bits // 8, "big")

    @property
    def single(self) -> bool:
        """One address."""
        return self.prefix == self.bits

    def __str__(self) -> str:
        family = socket.AF_INET if self.bits == 32 else socket.AF_INET6
        return f"{socket.inet_ntop(family, self.first)}/{self.prefix}"


def parse_block(text: str) -> Block:
    """`ADDRESS[/PREFIX]`; bits beyond the prefix must be zero. Raises `ValueError`."""
    address, slash, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        packed = socket.inet_pton(family, address)
    except OSError as error:
        raise ValueError(f"{address!r} is not an address") from error
    bits = len(packed) * 8
    if slash and not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits):
        raise ValueError(f"{length!r} is not a prefix's length")
    prefix = int(length) if slash else bits
    base = int.from_bytes(packed, "big")
    if base & ((1 << (bits - prefix)) - 1):
        raise ValueError(f"{address} has bits beyond the prefix of {prefix}")
    return Block(base, prefix, bits)


def _table(text: str) -> tuple[tuple[Block, str], ...]:
    rows = (line.split() for line in text.strip().splitlines())
    return tuple((parse_block(row[0]), row[1]) for row in rows)


_SHIELDED = _table(
    """
    0.0.0.0/32 unspecified
    0.0.0.0/8 reserved
    10.0.0.0/8 private
    100.64.0.0/10 private
    127.0.0.0/8 loopback
    169.254.0.0/16 link-local
    172.16.0.0/12 private
    192.0.0.0/24 reserved
    192.0.2.0/24 reserved
    192.88.99.0/24 reserved
    192.168.0.0/16 private
    198.18.0.0/15 reserved
    198.51.100.0/24 reserved
    203.0.113.0/24 reserved
    224.0.0.0/4 multicast
    240.0.0.0/4 reserved
    ::/128 unspecified
    ::1/128 loopback
    fc00::/7 private
    fe80::/10 link-local
    fec0::/10 private
    ff00::/8 multicast
    2001::/23 reserved
    2001:db8::/32 reserved
    3fff::/20 reserved
    """
)
_GLOBAL6 = parse_block("2000::/3")
_NAT64 = parse_block("64:ff9b::/96")
_MAPPED = parse_block("::ffff:0:0/96")
_SIX_TO_FOUR = parse_block("2002::/16")


def block_of(address: bytes) -> tuple[Block, str] | None:
    """The shielded range that `address` is in, with what it is; None for the public Internet's."""
    for block, kind in _SHIELDED:
        if block.holds(address):
            return block, kind
    if len(address) == 16 and not _GLOBAL6.holds(address) and not _NAT64.holds(address):
        return Block(address[0] << 120, 8, 128), "reserved"
    return None


def embedded(address: bytes) -> bytes | None:
    """The IPv4 address that a translator or tunnel would take an IPv6 address to.

    Teredo's and ISATAP's are not looked at: the first are reserved above, the second are link-local or begin with a
    prefix that is judged itself.
    """
    if _MAPPED.holds(address) or _NAT64.holds(address):
        return address[12:]
    if _SIX_TO_FOUR.holds(address):
        return address[2:6]
    return None
