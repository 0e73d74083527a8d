"""Credentials for registries: Docker's `config.json`, Podman's `auth.json`, and `docker-credential-*` helpers."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firkin.errors import ImageError, RegistryError
from firkin.oci._lock import lock_file
from firkin.oci.registry.settings import RegistrySettings

__all__ = ["Credentials", "find_credentials", "forget_credentials", "store_credentials"]

_DOCKER_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_HELPER_LIMIT = 60.0
_FILE_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, or an identity token (OAuth 2 refresh token) instead of both."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The value of a basic `Authorization` header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_credentials(settings: RegistrySettings, registry: str, repository: str = "") -> Credentials | None:
    """The credentials for `registry`, or for `registry/repository` where a file narrows them so; None for anonymous.

    Raises `RegistryError` where a file is damaged or a helper fails.
    """
    for path in settings.auth_files:
        document = _read(path)
        helpers = document.get("credHelpers") or {}
        names = list(_keys(registry, repository))
        for name in names:
            if isinstance(helpers, dict) and isinstance(helper := helpers.get(name), str):
                return _ask_helper(helper, name)
        auths = document.get("auths") or {}
        for name in names:
            if (
                isinstance(auths, dict)
                and isinstance(entry := auths.get(name), dict)
                and (found := _decode(entry, path))
            ):
                return found
        keeper = document.get("credsStore")
        if isinstance(keeper, str) and keeper and (found := _ask_helper(keeper, names[-1])):
            return found
    return None


def store_credentials(settings: RegistrySettings, registry: str, credentials: Credentials) -> None:
    """Keep `credentials` for `registry` in the login file, or by the helper that it names."""
    path = _login_file(settings)
    key = _key(registry)
    if helper := _helper_of(_read(path), key):
        secret = {"ServerURL": key, "Username": credentials.username, "Secret": credentials.password}
        _run_helper(helper, "store", json.dumps(secret))
        return
    with _changed(path) as document:
        auth = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
        document.setdefault("auths", {})[key] = {"auth": auth}


def forget_credentials(settings: RegistrySettings, registry: str) -> bool:
    """Remove what `store_credentials` kept; whether there was anything."""
    path = _login_file(settings)
    key = _key(registry)
    document = _read(path)
    if helper := _helper_of(document, key):
        known = _ask_helper(helper, key) is not None
        if known:
            _run_helper(helper, "erase", key)
        return known
    if key not in (document.get("auths") or {}):
        return False
    with _changed(path) as document:
        document.get("auths", {}).pop(key, None)
    return True


def _login_file(settings: RegistrySettings) -> Path:
    if settings.login_file is None:
        raise RegistryError("there is no file to keep credentials in", hint="set DOCKER_CONFIG or REGISTRY_AUTH_FILE")
    return settings.login_file


def _key(registry: str) -> str:
    return _DOCKER_KEY if registry == "docker.io" else registry


def _keys(registry: str, repository: str) -> Iterator[str]:
    """The names under which files keep credentials, the narrowest first (containers-auth.json(5))."""
    parts = repository.split("/") if repository else []
    for count in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:count]])
    if registry == "docker.io":
        yield from ("docker.io", "index.docker.io", "registry-1.docker.io")
    else:
        yield f"https://{registry}"
        yield f"https://{registry}/"
    yield _key(registry)


def _decode(entry: dict[str, Any], path: Path) -> Credentials | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(identity_token=token)
    if isinstance(auth := entry.get("auth"), str) and auth:
        try:
            username, colon, secret = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise RegistryError(f"{path} holds credentials that can't be decoded", hint="firkin image login") from error
        return Credentials(username, secret.rstrip("\0")) if colon else None
    name, password = entry.get("username"), entry.get("password")
    if isinstance(name, str) and isinstance(password, str):
        return Credentials(name, password)
    return None


def _helper_of(document: dict[str, Any], key: str) -> str | None:
    helpers = document.get("credHelpers")
    helper = helpers.get(key) if isinstance(helpers, dict) else None
    helper = helper or document.get("credsStore")
    return helper if isinstance(helper, str) and helper else None


def _ask_helper(helper: str, server: str) -> Credentials | None:
    answer = _run_helper(helper, "get", server, missing_is_none=True)
    if answer is None:
        return None
    try:
        found = json.loads(answer)
        username, secret = found["Username"], found["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"docker-credential-{helper} answers with something that is no credential") from error
    if username == "<token>":
        return Credentials(identity_token=str(secret))
    return Credentials(str(username), str(secret))


def _run_helper(helper: str, verb: str, text: str, *, missing_is_none: bool = False) -> str | None:
    if not _HELPER.match(helper):
        raise RegistryError(f"{helper[:60]!r} is not a credential helper's name")
    program = f"docker-credential-{helper}"
    try:
        ended = subprocess.run(
            [program, verb], input=text, capture_output=True, text=True, timeout=_HELPER_LIMIT, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RegistryError(f"{program} can't be run", hint="is it installed and on PATH?") from error
    if ended.returncode == 0:
        return ended.stdout
    said = (ended.stdout + ended.stderr).strip()
    if missing_is_none and "credentials not found" in said:
        return None
    raise RegistryError(f"{program} {verb} failed: {said.splitlines()[0][:200] if said else ended.returncode}")


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_MAX)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    try:
        document = json.loads(content or b"{}")
    except ValueError as error:
        raise RegistryError(f"{path} is not JSON") from error
    if not isinstance(document, dict):
        raise RegistryError(f"{path} is not a JSON object")
    return document


class _changed:
    """The file's document, for changing; written back whole, with mode 0600, on a clean exit."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> dict[str, Any]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = lock_file(self._path.with_name(f".{self._path.name}.firkin-lock"), timeout=30)
        assert lock is not None
        self._lock = lock
        self._document = _read(self._path)
        return self._document

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with self._lock:
            if error is None:
                temporary = self._path.with_name(f".{self._path.name}.{os.urandom(4).hex()}")
                try:
                    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                    with os.fdopen(descriptor, "w") as file:
                        json.dump(self._document, file, indent=1)
                        file.flush()
                        os.fsync(file.fileno())
                    temporary.rename(self._path)
                except OSError as failure:
                    raise ImageError(f"can't write {self._path}: {failure.strerror}") from failure
                finally:
                    temporary.unlink(missing_ok=True)
            self._lock.path.unlink(missing_ok=True)
