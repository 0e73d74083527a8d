"""HTTP to registries: one connection pool a host, certificates, proxies, retries, redirects that leak nothing."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urljoin, urlsplit

from firkin.errors import RegistryError
from firkin.oci.registry._httpx import httpx
from firkin.oci.registry.settings import RegistrySettings, is_loopback
from firkin.oci.registry.tls import context as tls_context

__all__ = [
    "Request",
    "Retry",
    "Transport",
    "is_transient",
    "read_whole",
    "reason",
    "reason_of",
    "retry_after",
    "unreachable",
]

_log = logging.getLogger(__name__)
_REDIRECTS_MAX = 8
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_CONNECTIONS = 16
_ERROR_BODY_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class Retry:
    """How failures that may pass are tried again: `attempts` in all, waiting `first` seconds, then twice as long each
    time.

    A server's Retry-After is honoured up to `longest` seconds. `sleep` waits.
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def wait(self, failures: int, after: float | None, what: str) -> None:
        """Wait after the `failures`-th failure in a row; `after` is what the server asked for, in seconds."""
        pause = min(self.first * 2 ** (failures - 1), self.longest) * random.uniform(0.75, 1.25)
        if after is not None:
            pause = max(after, 0.0)
        _log.info("%s; trying again in %.1f s", what, pause)
        await self.sleep(pause)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `content` makes a fresh body each time it is called."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    content: Callable[[], bytes | AsyncIterator[bytes]] | None = None


class Transport:
    """Connections to any number of hosts; an async context manager. `timeout` is for a connection and for silence, in
    s.
    """

    def __init__(self, settings: RegistrySettings, *, retry: Retry | None = None, timeout: float = 30.0) -> None:
        self._settings = settings
        self.retry = retry or Retry()
        self._timeout = timeout
        self._clients: dict[tuple[str, str], httpx.AsyncClient] = {}

    @contextlib.asynccontextmanager
    async def once(self, request: Request, authorization: str = "") -> AsyncIterator[httpx.Response]:
        """Send `request` and yield the answer, body unread, redirects followed; no retries.

        `authorization` goes to the host of `request` only, never along a redirect to another. Raises `httpx` errors,
        and `RegistryError` for a redirect loop or one that gives up TLS.
        """
        url, sent, method = request.url, authorization, request.method
        for _ in range(_REDIRECTS_MAX):
            headers = {**request.headers, **({"authorization": sent} if sent else {})}
            body = request.content() if request.content and method == request.method else None
            client = self._client(url)
            async with client.stream(method, url, headers=headers, content=body) as response:
                target = response.headers.get("location")
                if response.status_code not in _REDIRECTED or target is None or request.method in ("POST", "PATCH"):
                    yield response
                    return
                await _drain(response)
                new = urljoin(url, target)
            if _origin(new) != _origin(url):
                sent = ""
            self._check_redirect(url, new)
            url = new
        raise RegistryError(f"{urlsplit(request.url).netloc} redirects more than {_REDIRECTS_MAX} times", hint="a loop")

    @contextlib.asynccontextmanager
    async def send(
        self,
        request: Request,
        authorization: Callable[[], str],
        answer: Callable[[httpx.Response, str], Awaitable[bool]],
    ) -> AsyncIterator[httpx.Response]:
        """Send `request` until an answer that stands: failures that may pass are tried again, challenges are answered
        once.

        `authorization` gives the header of each try, `answer` takes a 401 up. Raises `RegistryError` where the host
        can't be reached.
        """
        failures = challenged = 0
        while True:
            used = authorization()
            async with contextlib.AsyncExitStack() as stack:
                after: float | None = None
                try:
                    response = await stack.enter_async_context(self.once(request, used))
                except httpx.HTTPError as error:
                    failures += 1
                    if not is_transient(error) or failures >= self.retry.attempts:
                        raise unreachable(request.url, error) from error
                    what = f"{urlsplit(request.url).netloc}: {reason(error)}"
                else:
                    origin = _origin(str(response.url)) == _origin(request.url)
                    if response.status_code == 401 and origin and challenged < 2 and await answer(response, used):
                        challenged += 1
                        await _drain(response)
                        continue
                    if response.status_code not in _RETRIED or failures + 1 >= self.retry.attempts:
                        yield response
                        return
                    failures += 1
                    after = retry_after(response, self.retry.longest)
                    what = f"{urlsplit(request.url).netloc} answered {response.status_code}"
            await self.retry.wait(failures, after, what)

    def _check_redirect(self, old: str, new: str) -> None:
        parts = urlsplit(new)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError(f"{urlsplit(old).netloc} redirects to {new[:100]!r}, which is no web address")
        if parts.scheme == "http" and urlsplit(old).scheme == "https" and not self._settings.plain_http(parts.netloc):
            raise RegistryError(f"{urlsplit(old).netloc} redirects to {parts.netloc} without TLS")

    def _client(self, url: str) -> httpx.AsyncClient:
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc)
        if key not in self._clients:
            verify = tls_context(self._settings.certificates_of(parts.netloc)) if parts.scheme == "https" else False
            self._clients[key] = httpx.AsyncClient(
                verify=verify,
                # As other clients do, this machine's own ports are never asked for through a proxy.
                trust_env=self._settings.proxies and not is_loopback(parts.hostname or ""),
                timeout=httpx.Timeout(self._timeout, pool=None),
                limits=httpx.Limits(max_connections=_CONNECTIONS),
                headers={"user-agent": "firkin", "accept-encoding": "identity"},
                follow_redirects=False,
            )
        return self._clients[key]

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()


async def _drain(response: httpx.Response) -> None:
    """Read a short body that nobody wants, so that the connection can be used again."""
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) <= _ERROR_BODY_MAX:
        with contextlib.suppress(httpx.HTTPError):
            async for _ in response.aiter_raw():
                pass


async def read_whole(
    opened: Callable[[], contextlib.AbstractAsyncContextManager[httpx.Response]],
    check: Callable[[httpx.Response], Awaitable[None]],
    *,
    retry: Retry,
    limit: int,
    what: str,
) -> tuple[httpx.Response, bytes]:
    """The answer that `opened` gives and its whole body, asked for again where the connection breaks in the middle.

    `check` refuses an answer before its body is read. Raises `RegistryError` for a body beyond `limit` bytes.
    """
    failures = 0
    while True:
        try:
            async with opened() as response:
                await check(response)
                return response, await _read_all(response, limit, what)
        except httpx.HTTPError as error:
            failures += 1
            if failures >= retry.attempts:
                raise RegistryError(f"can't read {what}: {reason(error)}", hint="try again later") from error
            broken = f"{what}: {reason(error)}"
        await retry.wait(failures, None, broken)


async def _read_all(response: httpx.Response, limit: int, what: str) -> bytes:
    length = response.headers.get("content-length", "0")
    content = bytearray()
    if not length.isdigit() or int(length) <= limit:
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > limit:
                break
        else:
            return bytes(content)
    raise RegistryError(f"{what} is larger than {limit} bytes")


async def reason_of(response: httpx.Response) -> str:
    """What an error's answer says (Distribution spec, "Error Codes"), short and printable; else its status."""
    import json

    body = b""
    with contextlib.suppress(httpx.HTTPError):
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > _ERROR_BODY_MAX:
                break
    try:
        first = json.loads(body)["errors"][0]
        text = f"{first.get('code', '')}: {first.get('message', '')}".strip(": ")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        text = ""
    shown = "".join(character for character in text[:200] if character.isprintable())
    return shown or f"{response.status_code} {response.reason_phrase}"[:100]


def is_transient(error: httpx.HTTPError) -> bool:
    """Whether another try may succeed: not where TLS or the address is wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return isinstance(cause, ssl.SSLEOFError)
        cause = cause.__cause__ or cause.__context__
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def reason(error: BaseException) -> str:
    """A failed connection in a few words."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return " ".join(str(error).split())[:200] or type(error).__name__


def unreachable(url: str, error: httpx.HTTPError) -> RegistryError:
    """The error for a host that can't be spoken with."""
    text = reason(error)
    hint = "its certificate is not trusted: put its authority into certs.d" if "CERTIFICATE_VERIFY" in text else None
    return RegistryError(f"can't reach {urlsplit(url).netloc}: {text}", hint=hint or "is the name right, is it up?")


def retry_after(response: httpx.Response, longest: float) -> float | None:
    """Retry-After in seconds (RFC 9110, 10.2.3): a number or a date; at most `longest`. None where there is none."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return min(float(text), longest)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return min(max(moment.timestamp() - time.time(), 0.0), longest)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
