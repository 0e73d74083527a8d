"""A registry by the OCI Distribution specification: manifests, blobs, uploads, tags."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

from firkin.errors import ImageNotFoundError, InvalidInputError, RegistryError
from firkin.oci._json import parse_object
from firkin.oci.manifest import DEFAULT_LIMITS, ImageLimits
from firkin.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from firkin.oci.registry._httpx import httpx
from firkin.oci.registry.auth import Authenticator, TokenRequest
from firkin.oci.registry.credentials import Credentials, find_credentials
from firkin.oci.registry.settings import RegistrySettings, host_of
from firkin.oci.registry.transport import Request, Retry, Transport, read_whole, reason_of, unreachable
from firkin.types.digest import Digest
from firkin.types.reference import Reference

__all__ = ["FetchedManifest", "RegistryClient", "Repository", "refused"]

_ACCEPT = ", ".join(sorted(MANIFEST_TYPES) + sorted(INDEX_TYPES))
_TOKEN_ANSWER_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest or index as the registry sent it; `digest` is that of `content`."""

    content: bytes
    media_type: str
    digest: Digest


class RegistryClient:
    """All registries, with one set of connections and tokens; an async context manager.

    `credentials` replaces what the user's files say, for any host.
    """

    def __init__(
        self,
        settings: RegistrySettings | None = None,
        *,
        credentials: Credentials | None = None,
        limits: ImageLimits = DEFAULT_LIMITS,
        retry: Retry | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.settings = settings or RegistrySettings.default()
        self.limits = limits
        self.transport = Transport(self.settings, retry=retry, timeout=timeout)
        self._credentials = credentials
        self._authenticators: dict[tuple[str, str], Authenticator] = {}
        self._schemes: dict[str, str] = {}

    async def repository(self, reference: Reference, host: str | None = None) -> Repository:
        """The repository of `reference` at `host` (default: the registry itself). Raises `RegistryError`."""
        host = host or host_of(reference.registry)
        base = f"{await self._scheme(host)}://{host}"
        key = (host, reference.repository)
        if key not in self._authenticators:
            # A mirror is another server: it gets its own credentials, never the registry's.
            registry = reference.registry if host == host_of(reference.registry) else host
            credentials = self._credentials or find_credentials(self.settings, registry, reference.repository)
            self._authenticators[key] = Authenticator(
                host, credentials, self._fetch_token, secure=base.startswith("https:")
            )
        return Repository(self, base, reference.repository, self._authenticators[key])

    async def check_login(self, registry: str, credentials: Credentials) -> None:
        """See whether `registry` takes `credentials`. Raises `RegistryError`, with status 401 where it does not."""
        host = host_of(registry)
        base = f"{await self._scheme(host)}://{host}"
        login = Authenticator(host, credentials, self._fetch_token, secure=base.startswith("https:"))
        async with self.request(Request("GET", f"{base}/v2/"), login, "") as response:
            if response.status_code != 200:
                raise await refused(response, f"{registry} refused the login")

    @contextlib.asynccontextmanager
    async def request(self, request: Request, login: Authenticator, scope: str) -> AsyncIterator[httpx.Response]:
        """Send `request` with retries and log in where asked to; any final answer is yielded."""

        async def answer(response: httpx.Response, used: str) -> bool:
            header = ", ".join(response.headers.get_list("www-authenticate"))
            return await login.answer(header, scope, used)

        async with self.transport.send(request, lambda: login.header(scope), answer) as response:
            yield response

    async def _scheme(self, host: str) -> str:
        if not self.settings.plain_http(host):
            return "https"
        if host not in self._schemes:
            try:
                async with self.transport.once(Request("GET", f"http://{host}/v2/")) as response:
                    # A TLS port answers plain HTTP with 400, or by hanging up.
                    self._schemes[host] = "https" if response.status_code == 400 else "http"
            except (httpx.RemoteProtocolError, httpx.ReadError):
                self._schemes[host] = "https"
            except httpx.HTTPError as error:
                raise unreachable(f"http://{host}", error) from error
        return self._schemes[host]

    async def _fetch_token(self, request: TokenRequest) -> dict[str, Any]:
        headers = {"authorization": request.authorization} if request.authorization else {}
        form = request.form
        if form is None:
            asked = Request("GET", request.url)
        else:
            encoded = str(httpx.QueryParams(form)).encode()
            typed = {"content-type": "application/x-www-form-urlencoded"}
            asked = Request("POST", request.url, typed, lambda: encoded)

        async def no_answer(response: httpx.Response, used: str) -> bool:
            return False

        where = urlsplit(request.url).netloc

        async def check(response: httpx.Response) -> None:
            if response.status_code != 200:
                raise await refused(response, f"the token server {where} refused")

        _, content = await read_whole(
            lambda: self.transport.send(asked, lambda: headers.get("authorization", ""), no_answer),
            check,
            retry=self.transport.retry,
            limit=_TOKEN_ANSWER_MAX,
            what=f"the answer of {where}",
        )
        return parse_object(content, f"the answer of {where}")

    async def __aenter__(self) -> RegistryClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.transport.__aexit__(kind, error, trace)


class Repository:
    """One repository at one host."""

    def __init__(self, client: RegistryClient, base: str, name: str, login: Authenticator) -> None:
        self._client = client
        self._login = login
        self._base = base
        self.host = urlsplit(base).netloc
        self.name = name
        self.transport = client.transport

    def url(self, rest: str) -> str:
        """The address of `rest` below this repository."""
        return f"{self._base}/v2/{self.name}/{rest}"

    @contextlib.asynccontextmanager
    async def send(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, content: Any = None, push: bool = False
    ) -> AsyncIterator[httpx.Response]:
        """One request, logged in for pulling, or for pulling and pushing."""
        scope = f"repository:{self.name}:{'pull,push' if push else 'pull'}"
        request = Request(method, urljoin(self._base, url), headers or {}, content)
        async with self._client.request(request, self._login, scope) as response:
            yield response

    async def manifest_digest(self, tag: str) -> Digest | None:
        """What `tag` points at, without fetching it; None where the registry does not say."""
        async with self.send("HEAD", self.url(f"manifests/{tag}"), headers={"accept": _ACCEPT}) as response:
            if response.status_code in (405, 501):
                return None
            await self._expect(response, (200,), f"{self.name}:{tag}")
            return _digest_header(response)

    async def manifest(self, wanted: str | Digest) -> FetchedManifest:
        """The manifest or index of a tag or digest. Raises `ImageNotFoundError`, `RegistryError`."""
        separator = "@" if isinstance(wanted, Digest) else ":"
        shown = f"{self.name}{separator}{wanted}"
        response, content = await read_whole(
            lambda: self.send("GET", self.url(f"manifests/{wanted}"), headers={"accept": _ACCEPT}),
            lambda response: self._expect(response, (200,), shown),
            retry=self.transport.retry,
            limit=self._client.limits.manifest,
            what=f"the manifest of {shown}",
        )
        promised = _digest_header(response)
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        algorithm = wanted.algorithm if isinstance(wanted, Digest) else promised.algorithm if promised else "sha256"
        digest = Digest.of(content, algorithm)
        for expected in (wanted if isinstance(wanted, Digest) else None, promised):
            if expected is not None and expected.algorithm == digest.algorithm and expected != digest:
                raise RegistryError(
                    f"{self.host} sent a manifest for {shown} that hashes to {digest}", hint="try again"
                )
        return FetchedManifest(content, media_type, digest)

    async def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has the blob."""
        async with self.send("HEAD", self.url(f"blobs/{digest}"), push=True) as response:
            return response.status_code == 200

    async def put_manifest(self, wanted: str | Digest, content: bytes, media_type: str) -> None:
        """Upload a manifest or index under a tag or its digest. Raises `RegistryError`."""
        url = self.url(f"manifests/{wanted}")
        headers = {"content-type": media_type}
        async with self.send("PUT", url, headers=headers, content=lambda: content, push=True) as response:
            await self._expect(response, (200, 201, 202), f"{self.name}:{wanted}")

    async def _expect(self, response: httpx.Response, wanted: tuple[int, ...], shown: str) -> None:
        if response.status_code in wanted:
            return
        if response.status_code == 404:
            raise ImageNotFoundError(f"{self.host} has no {shown}", hint="check the name and the tag")
        raise await refused(response, f"{self.host} refused {shown}")


async def refused(response: httpx.Response, what: str) -> RegistryError:
    """The error for an answer that stands; `what` says what was refused."""
    status = response.status_code
    hint = {401: "firkin image login", 403: "these credentials may not do this", 429: "wait, or log in"}.get(status)
    return RegistryError(f"{what}: {await reason_of(response)}", status=status, hint=hint)


def _digest_header(response: httpx.Response) -> Digest | None:
    try:
        return Digest(response.headers.get("docker-content-digest", ""))
    except InvalidInputError:
        return None
