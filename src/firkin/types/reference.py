"""Image references, by the grammar of the Distribution project (`reference/reference.go`) with Docker's defaults."""

from __future__ import annotations

import re
from dataclasses import replace

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types.digest import Digest

__all__ = ["Reference"]

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?\Z")
_NAME_MAX = 255  # registry and repository together, as Distribution bounds them
_DOCKER = "docker.io"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is: `registry/repository[:tag][@digest]`.

    The constructor checks each part and raises `InvalidInputError`; `parse` also fills in Docker's defaults.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if not _REGISTRY.match(self.registry):
            raise InvalidInputError(f"{self.registry!r} is not a registry's name", value=self.registry)
        if not _REPOSITORY.match(self.repository):
            hint = "lower-case letters, digits and single separators . _ - between them"
            if self.repository.lower() != self.repository and _REPOSITORY.match(self.repository.lower()):
                hint = "a repository's name is in lower case"
            raise InvalidInputError(f"{self.repository!r} is not a repository's name", value=self.repository, hint=hint)
        if len(self.registry) + 1 + len(self.repository) > _NAME_MAX:
            raise InvalidInputError(f"the name of the image is longer than {_NAME_MAX} characters", value=self.name)
        if self.tag is not None and not _TAG.match(self.tag):
            raise InvalidInputError(
                f"{self.tag[:200]!r} is not a tag", value=self.tag, hint="1-128 of A-Z a-z 0-9 _ . -"
            )

    @classmethod
    def parse(cls, text: str, *, default_registry: str = _DOCKER) -> Reference:
        """Read a reference as `docker pull` does: `busybox` is `docker.io/library/busybox:latest`.

        The part before the first `/` is a registry where it holds `.` or `:` or is `localhost`. A digest without a tag
        gets no default tag. `default_registry` takes the place of `docker.io` (`library/` then stays away).
        Raises `InvalidInputError`.
        """
        if not text:
            raise InvalidInputError("an image reference is empty", value=text)
        if len(text) > 2 * _NAME_MAX + 200:
            raise InvalidInputError("an image reference is too long", value=text)
        rest, at, digest = text.partition("@")
        checked = Digest(digest) if at else None
        head, slash, tail = rest.rpartition("/")
        last, colon, tag = tail.partition(":")
        name = head + slash + last
        registry, repository = cls._split(name, default_registry)
        return cls(registry, repository, tag if colon else (None if checked else "latest"), checked)

    @staticmethod
    def _split(name: str, default_registry: str) -> tuple[str, str]:
        first, slash, rest = name.partition("/")
        if slash and has_registry(name):
            registry, repository = ("docker.io" if first == "index.docker.io" else first), rest
        else:
            registry, repository = default_registry, name
        if registry == _DOCKER and repository and "/" not in repository:
            repository = "library/" + repository
        return registry, repository

    @property
    def name(self) -> str:
        """`registry/repository`."""
        return f"{self.registry}/{self.repository}"

    def canonical(self) -> str:
        """The whole reference: registry, repository, tag and digest, each where it is known."""
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.name}{tag}{digest}"

    def pinned(self, digest: Digest) -> Reference:
        """The same repository at exactly this digest; the tag goes away."""
        return replace(self, tag=None, digest=digest)

    def familiar(self) -> str:
        """As people write it: without `docker.io/` and `library/`."""
        text = self.canonical()
        for prefix in (f"{_DOCKER}/library/", f"{_DOCKER}/"):
            # Only where the short form reads back as the same reference.
            if text.startswith(prefix) and not has_registry(text.removeprefix(prefix)):
                return text.removeprefix(prefix)
        return text

    def __str__(self) -> str:
        return self.canonical()


def has_registry(text: str) -> bool:
    """Whether `text` names its registry, so that no short-name rule applies to it."""
    first, slash, _ = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
