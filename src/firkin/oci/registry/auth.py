"""Answering a registry's challenges: basic (RFC 7617) and bearer tokens (Distribution, "Token Authentication")."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from firkin.errors import RegistryError
from firkin.oci.registry.credentials import Credentials
from firkin.oci.registry.settings import is_loopback

__all__ = ["Authenticator", "Challenge", "TokenRequest", "parse_challenges"]

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9._~+-]*)(?:\s+|\Z)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_TOKEN_LIFE = 60  # seconds, where the answer does not say
_EARLY = 5
_HEADER_MAX = 8192
_TOKEN_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a `WWW-Authenticate` header: its scheme in lower case, and its parameters."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request for a token: GET with `authorization`, or POST of `form` where there is one."""

    url: str
    authorization: str = ""
    form: dict[str, str] | None = None


FetchToken = Callable[[TokenRequest], Awaitable[dict[str, Any]]]


def parse_challenges(header: str) -> list[Challenge]:
    """Every challenge in a `WWW-Authenticate` header (RFC 9110, 11.6.1); what is malformed is left out."""
    found: list[Challenge] = []
    position, header = 0, header[:_HEADER_MAX]
    while match := _SCHEME.match(header, position):
        position = match.end()
        parameters: dict[str, str] = {}
        while pair := _PARAMETER.match(header, position):
            quoted = pair.group(2)
            parameters[pair.group(1).lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else pair.group(3)
            position = pair.end()
        found.append(Challenge(match.group(1).lower(), parameters))
    return found


class Authenticator:
    """What one registry has been told and has answered. `fetch` gets a token; `clock` is in seconds."""

    def __init__(
        self,
        host: str,
        credentials: Credentials | None,
        fetch: FetchToken,
        *,
        secure: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._credentials = credentials
        self._fetch = fetch
        self._secure = secure
        self._clock = clock
        self._basic = False
        self._renewing = asyncio.Lock()
        self._tokens: dict[str, tuple[str, float]] = {}

    def header(self, scope: str) -> str:
        """The `Authorization` header for a request of `scope`; empty where nothing was asked for yet."""
        if self._basic and self._credentials:
            return self._credentials.basic()
        token, until = self._tokens.get(scope, ("", 0.0))
        return f"Bearer {token}" if token and self._clock() < until else ""

    async def answer(self, header: str, scope: str, used: str) -> bool:
        """Take a challenge up, `used` being the header that was refused. False where nothing new can be offered."""
        challenges = parse_challenges(header)
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                async with self._renewing:
                    if self.header(scope) in ("", used):
                        await self._renew(challenge.parameters, scope)
                return self.header(scope) not in ("", used)
        for challenge in challenges:
            if challenge.scheme == "basic" and self._credentials and self._credentials.username:
                self._basic = True
                return self.header(scope) != used
        return False

    async def _renew(self, parameters: dict[str, str], scope: str) -> None:
        request = self._request(parameters, scope)
        answer = await self._fetch(request)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or len(token) > _TOKEN_MAX or not token.isprintable():
            raise RegistryError(f"the token server of {self._host} gave no token", hint="try again later")
        life = answer.get("expires_in")
        life = life if isinstance(life, int | float) and not isinstance(life, bool) and life > 0 else _TOKEN_LIFE
        self._tokens[scope] = (token, self._clock() + max(life - _EARLY, 1))

    def _request(self, parameters: dict[str, str], scope: str) -> TokenRequest:
        realm = parameters["realm"]
        parts = urlsplit(realm)
        near = is_loopback(parts.hostname or "") and is_loopback(self._host.rpartition(":")[0] or self._host)
        if parts.scheme != "https" and not (parts.scheme == "http" and (near or not self._secure)):
            # Our password would cross the network in the clear on the word of a header.
            raise RegistryError(f"{self._host} sends to a token server without TLS: {realm[:100]}")
        query = {"scope": scope or parameters.get("scope", "")}
        if service := parameters.get("service"):
            query["service"] = service
        query = {key: value for key, value in query.items() if value}
        credentials = self._credentials
        if credentials and credentials.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": credentials.identity_token, "client_id": "firkin"}
            return TokenRequest(realm, form={**form, **query})
        if credentials:
            query["account"] = credentials.username
        url = realm + ("&" if parts.query else "?") + urlencode(query)
        return TokenRequest(url, authorization=credentials.basic() if credentials else "")
