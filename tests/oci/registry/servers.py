"""Registries on loopback for tests: Debian's `docker-registry`, a token server, and a proxy that does harm."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_CONFIG = """
version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {folder}/data}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:0
  secret: x
{tls}
{auth}
"""


@dataclass
class Registry:
    """A running registry: `host` is `127.0.0.1:port`."""

    host: str
    folder: Path


@contextlib.contextmanager
def docker_registry(folder: Path, *, tls: str = "", auth: str = "") -> Iterator[Registry]:
    """Run `docker-registry` on a port of its choice. `tls` and `auth` are parts of its YAML configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(_CONFIG.format(folder=folder, tls=tls, auth=auth))
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if match := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
                break
        else:
            raise AssertionError("docker-registry did not start: " + "".join(said))
        reader = threading.Thread(target=process.stderr.read, daemon=True)
        reader.start()
        yield Registry(match.group(1), folder)
    finally:
        process.kill()
        process.wait()


class Handler(BaseHTTPRequestHandler):
    """Quiet, HTTP/1.1, body written in one go."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what many tests are about; all else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler], *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run an HTTP server in a thread; yields `127.0.0.1:port`."""
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Seen:
    """One request that a server got."""

    method: str
    path: str
    headers: dict[str, str]


Harm = Callable[[Handler, int], bool]


@dataclass
class Proxy:
    """A proxy before a registry. `harms` maps a regular expression over `METHOD path` to what is done instead.

    A harm gets the handler and how many requests of its kind came before; it says whether it has answered.
    """

    host: str = ""
    harms: dict[str, Harm] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, f"{one.method} {one.path}")) for one in self.seen)


@contextlib.contextmanager
def harmful_proxy(upstream: str) -> Iterator[Proxy]:
    """A proxy to the registry at `upstream`."""
    proxy = Proxy()
    lock = threading.Lock()

    class Forward(Handler):
        def answer(self) -> None:
            line = f"{self.command} {self.path}"
            with lock:
                pattern = next((each for each in proxy.harms if re.search(each, line)), "")
                harm, before = proxy.harms.get(pattern), proxy.count(pattern) if pattern else 0
                proxy.seen.append(Seen(self.command, self.path, dict(self.headers.items())))
            if harm is None or not harm(self, before):
                forward(self, upstream)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = answer

    with serving(Forward) as host:
        proxy.host = host
        yield proxy


def fetch(handler: Handler, upstream: str) -> tuple[int, dict[str, str], bytes]:
    """What the registry answers to the handler's request."""
    length = int(handler.headers.get("Content-Length") or 0)
    body = handler.rfile.read(length) if length else None
    connection = HTTPConnection(upstream, timeout=30)
    try:
        connection.request(handler.command, handler.path, body, dict(handler.headers.items()))
        answer = connection.getresponse()
        return answer.status, {k: v for k, v in answer.getheaders() if k != "Transfer-Encoding"}, answer.read()
    finally:
        connection.close()


def forward(handler: Handler, upstream: str) -> None:
    """Answer as the registry does."""
    status, headers, body = fetch(handler, upstream)
    handler.reply(status, headers, body)


def drop(handler: Handler) -> None:
    """Hang up without a word."""
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(2)


@dataclass
class TokenServer:
    """Hands out tokens and checks them, in place of a registry with token authentication."""

    host: str = ""
    requests: list[dict[str, list[str]]] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)
    lives: int = 300


@contextlib.contextmanager
def token_registry(upstream: str, user: str, password: str, *, refresh: str = "") -> Iterator[TokenServer]:
    """A registry that wants a bearer token of `/token` on the same host for everything; tokens say their scope."""
    state = TokenServer()
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Guard(Handler):
        def answer(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/token":
                self.token(parse_qs(parts.query))
                return
            repository = re.match(r"/v2/(.+?)/(?:manifests|blobs|tags)/", parts.path)
            actions = "pull,push" if self.command in ("POST", "PUT", "PATCH") else "pull"
            scope = f"repository:{repository.group(1)}:{actions}" if repository else ""
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if given in state.valid and (not scope or scope.split(":")[1] in given):
                forward(self, upstream)
                return
            challenge = f'Bearer realm="http://{state.host}/token",service="test"' + (
                f',scope="{scope}"' if scope else ""
            )
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            self.reply(401, {"WWW-Authenticate": challenge})

        def token(self, query: dict[str, list[str]]) -> None:
            allowed = self.headers.get("Authorization") == expected
            if self.command == "POST":
                query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                allowed = bool(refresh) and query.get("refresh_token") == [refresh]
            state.requests.append(query)
            if not allowed:
                body = b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}'
                self.reply(401, {}, body)
                return
            token = f"t{len(state.requests)}.{'.'.join(query.get('scope', ['']))}"
            state.valid.add(token)
            self.reply(200, {}, json.dumps({"token": token, "expires_in": state.lives}).encode())

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = answer

    with serving(Guard) as host:
        state.host = host
        yield state
