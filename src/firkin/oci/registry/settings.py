"""Where registries are, by which names and certificates, as the user has set it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firkin.errors import InvalidInputError

__all__ = ["RegistrySettings", "is_loopback"]

_DOCKER = "docker.io"
_DOCKER_HOST = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The user's settings for registries.

    `mirrors` gives the hosts to ask before a registry itself, in order. `insecure` registries may speak plain HTTP.
    `certificates` are folders in Docker's `certs.d` layout: `HOST[:PORT]/*.crt` (authorities), `*.cert` with `*.key`
    (client). `auth_files` are read in order, the first match wins; `login` writes to `login_file`. `proxies`: whether
    the proxy variables of the environment count.
    """

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    certificates: tuple[Path, ...] = ()
    auth_files: tuple[Path, ...] = ()
    login_file: Path | None = None
    proxies: bool = True

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> RegistrySettings:
        """From `config.toml`, then `FIRKIN_MIRRORS` and `FIRKIN_INSECURE_REGISTRIES`, and the usual places of others.

        `config.toml` is `FIRKIN_CONFIG` or `$XDG_CONFIG_HOME/firkin/config.toml`: `[registries."docker.io"]` with
        `mirrors = [...]` and `insecure = true`. `FIRKIN_MIRRORS` is `docker.io=host:5000,…`. Raises
        `InvalidInputError`.
        """
        home = Path(environ.get("HOME") or "~").expanduser()
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        mirrors, insecure = _from_file(Path(environ.get("FIRKIN_CONFIG") or config / "firkin/config.toml"))
        for item in _listed(environ.get("FIRKIN_MIRRORS", "")):
            registry, equals, host = item.partition("=")
            if not equals:
                raise InvalidInputError(f"FIRKIN_MIRRORS holds {item!r}", value=item, hint="registry=host[:port],…")
            mirrors[registry] = (*mirrors.get(registry, ()), host)
        insecure.update(_listed(environ.get("FIRKIN_INSECURE_REGISTRIES", "")))
        docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
        own = environ.get("REGISTRY_AUTH_FILE")
        runtime = environ.get("XDG_RUNTIME_DIR")
        auth_files = (
            *([Path(own)] if own else []),
            *([Path(runtime) / "containers/auth.json"] if runtime else []),
            config / "containers/auth.json",
            docker / "config.json",
        )
        return cls(
            mirrors=mirrors,
            insecure=frozenset(insecure),
            certificates=(
                config / "firkin/certs.d",
                config / "containers/certs.d",
                Path("/etc/containers/certs.d"),
                Path("/etc/docker/certs.d"),
            ),
            auth_files=auth_files,
            login_file=Path(own) if own else docker / "config.json",
        )

    def hosts(self, registry: str) -> tuple[str, ...]:
        """The hosts to ask for images of `registry`, mirrors first."""
        return (*self.mirrors.get(registry, ()), host_of(registry))

    def certificates_of(self, host: str) -> Path | None:
        """The first `certs.d` folder for `host` (`name[:port]`)."""
        return next((folder / host for folder in self.certificates if (folder / host).is_dir()), None)

    def plain_http(self, host: str) -> bool:
        """Whether plain HTTP may be spoken with `host`: loopback, or configured; never where it has certificates."""
        allowed = host in self.insecure or is_loopback(host.rpartition(":")[0] if _has_port(host) else host)
        return allowed and self.certificates_of(host) is None


def host_of(registry: str) -> str:
    """The host that serves `registry`."""
    return _DOCKER_HOST if registry == _DOCKER else registry


def is_loopback(name: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and not host.endswith("]")


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _from_file(path: Path) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    try:
        with path.open("rb") as file:
            import tomllib

            document = tomllib.load(file)
    except FileNotFoundError:
        return {}, set()
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} can't be read: {error}", value=path) from error
    mirrors: dict[str, tuple[str, ...]] = {}
    insecure: set[str] = set()
    for registry, entry in _table(document.get("registries", {}), path).items():
        found = _table(entry, path)
        listed = found.get("mirrors", [])
        if not isinstance(listed, list) or not all(isinstance(host, str) for host in listed):
            raise InvalidInputError(f"{path}: the mirrors of {registry} are not a list of hosts", value=listed)
        if listed:
            mirrors[registry] = tuple(listed)
        if found.get("insecure") is True:
            insecure.add(registry)
    return mirrors, insecure


def _table(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{path}: `registries` is not a table of tables", value=value)
    return value
