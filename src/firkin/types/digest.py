"""Content digests: `algorithm:hex`, as the OCI image specification writes them (descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from firkin.errors import InvalidInputError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Digest"]

_GRAMMAR = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


class Digest(str):
    """A checked digest, `sha256:` + 64 or `sha512:` + 128 lower-case hexadecimal digits.

    It is a `str`, so that it goes into JSON and file names as it is. Raises `InvalidInputError` for anything else.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if not isinstance(text, str) or not _GRAMMAR.match(text):
            shown = text[:150] if isinstance(text, str) else text
            raise InvalidInputError(f"{shown!r} is not a digest", value=text, hint="sha256: and 64 hex digits")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of `content`."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")

    @classmethod
    def from_hash(cls, state: _Hash) -> Digest:
        """The digest that a `hashlib` object has reached."""
        return cls(f"{state.name}:{state.hexdigest()}")

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`, as `hashlib` names them."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The digits alone."""
        return self.partition(":")[2]

    def hasher(self) -> _Hash:
        """A fresh `hashlib` object of this algorithm."""
        return hashlib.new(self.algorithm)
