"""Platforms: the system, architecture and variant an image is made for (OCI image-index.md, "platform")."""

from __future__ import annotations

import os
from collections.abc import Sequence

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass

__all__ = ["Platform"]

# What `uname -m` and people say, to Go's names, which OCI uses (OCI image-index.md refers to GOARCH and GOARM).
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "ppc64el": ("ppc64le", ""),
}
_VARIANTS = {
    "amd64": ("v1", "v2", "v3", "v4"),
    "arm64": ("v8",),
    "arm": ("v5", "v6", "v7"),
    "riscv64": (),
    "ppc64le": (),
    "s390x": (),
}
_DEFAULT_VARIANT = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


@dataclass(frozen=True, slots=True)
class Platform:
    """`linux` with one of amd64, arm64, arm, riscv64, ppc64le, s390x and a variant (empty where it is the usual one).

    The variants amd64/v1 and arm64/v8 are written as none; arm without one is arm/v7. Raises `InvalidInputError`.
    """

    architecture: str
    variant: str = ""
    os: str = "linux"

    def __post_init__(self) -> None:
        architecture, implied = _ALIASES.get(self.architecture, (self.architecture, ""))
        variant = self.variant or implied
        if self.os != "linux" or architecture not in _VARIANTS:
            raise InvalidInputError(
                f"platform {self.os}/{self.architecture} is not supported", value=self, hint=_known()
            )
        if variant in ("7", "6", "5", "8"):
            variant = "v" + variant
        if variant and variant not in _VARIANTS[architecture]:
            raise InvalidInputError(f"{architecture} has no variant {variant!r}", value=self, hint=_known())
        if architecture == "arm":
            variant = variant or "v7"
        elif variant == _DEFAULT_VARIANT.get(architecture):
            variant = ""
        object.__setattr__(self, "architecture", architecture)
        object.__setattr__(self, "variant", variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/arch[/variant]`, `arch` or `arch/variant`; `x86_64` and `aarch64` are understood.

        Raises `InvalidInputError` for another system or an unknown architecture or variant.
        """
        parts = text.strip().lower().split("/")
        if parts[0] in ("linux", "windows", "darwin", "freebsd") and len(parts) > 1:
            system, parts = parts[0], parts[1:]
        else:
            system = "linux"
        if len(parts) > 2:
            raise InvalidInputError(f"{text!r} is not a platform", value=text, hint=_known())
        return cls(parts[0], parts[1] if len(parts) == 2 else "", system)

    @classmethod
    def current(cls) -> Platform:
        """The platform of this host."""
        return cls(os.uname().machine)

    def runs(self, image: Platform) -> bool:
        """Whether this platform executes code made for `image`: same architecture, no higher variant."""
        if self.architecture != image.architecture:
            return False
        order = _VARIANTS[self.architecture]
        usual = _DEFAULT_VARIANT.get(self.architecture, "")
        if not order:
            return True
        return order.index(image.variant or usual) <= order.index(self.variant or usual)

    def best(self, offered: Sequence[Platform]) -> int | None:
        """The index in `offered` of the platform nearest to this one that runs on it; None where none does.

        The highest variant wins; among equals the first, as in an image index.
        """
        order = _VARIANTS[self.architecture]
        usual = _DEFAULT_VARIANT.get(self.architecture, "")
        found, rank = None, -1
        for index, platform in enumerate(offered):
            if self.runs(platform):
                here = order.index(platform.variant or usual) if order else 0
                if here > rank:
                    found, rank = index, here
        return found

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def _known() -> str:
    return "linux and one of " + ", ".join(_VARIANTS)
