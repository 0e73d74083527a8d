"""Ports and tags by which host and guest find each other."""

from __future__ import annotations

from typing import Self

from firkin.errors import InvalidInputError

__all__ = ["VirtiofsTag", "VsockPort"]

# docs/protocol.md, section 4: the agent's RPC, and the library's own streams.
_RPC_PORT = 1024
_OWN_PORTS = range(0x1000_0000, 0x2000_0000 + 1)


class VsockPort(int):
    """A port of AF_VSOCK, 0 to 2^32 - 1."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        """Raises `InvalidInputError` where `value` does not fit."""
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFFFF_FFFF:
            raise InvalidInputError(f"{value!r} is not a vsock port", value=value, hint="0 to 4294967295")
        return super().__new__(cls, value)

    @property
    def reserved(self) -> bool:
        """True for the agent's port and the library's own (docs/protocol.md, section 4)."""
        # A range looks for an int at once, for a subclass of it one by one.
        return self == _RPC_PORT or int(self) in _OWN_PORTS

    @classmethod
    def for_user(cls, value: int) -> Self:
        """A port that a user may dial or listen on; raises `InvalidInputError` for a reserved one."""
        port = cls(value)
        if port.reserved:
            raise InvalidInputError(
                f"the vsock port {int(port)} is reserved for Firkin",
                value=value,
                hint="not 1024, nor 0x10000000 to 0x20000000",
            )
        return port


class VirtiofsTag(str):
    """The name of a share: 1 to 36 printable ASCII bytes (virtio 1.2, section 5.11.4: `tag` has 36 bytes)."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Raises `InvalidInputError` that names what is wrong with `value`."""
        if not value:
            raise InvalidInputError("the virtiofs tag is empty", value=value)
        if len(value) > 36:
            raise InvalidInputError(
                f"the virtiofs tag {value[:16]!r}… is too long: {len(value)} bytes", value=value, hint="at most 36"
            )
        if not (value.isascii() and value.isprintable()):
            raise InvalidInputError(f"the virtiofs tag {value!r} is not printable ASCII", value=value)
        return super().__new__(cls, value)
