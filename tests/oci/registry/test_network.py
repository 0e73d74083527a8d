"""What lies between: proxies of the environment, redirects away from TLS, and another process that pulls the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from firkin.errors import RegistryError
from firkin.oci import ImageStore
from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.pull import pull
from firkin.oci.registry.settings import RegistrySettings
from firkin.oci.registry.unchanged import unchanged
from firkin.types.state import StateDirs
from tests.oci.builders import Concatenated, Layout, layer_tar, sha256
from tests.oci.registry.conftest import push_layout
from tests.oci.registry.servers import (
    Handler,
    Proxy,
    Registry,
    docker_registry,
    drop,
    fetch,
    forward,
    harmful_proxy,
    serving,
)
from tests.oci.registry.test_faults import ROOT, SCRIPT, check
from tests.oci.registry.test_login import make_certificates

# A name that no DNS knows (RFC 6761): only a proxy can reach it.
FAR = "registry.invalid"
BIG = {"big": os.urandom(4 << 20)}
BIG_DIGEST = sha256(layer_tar(BIG))
BLOB = f"GET .*/blobs/{BIG_DIGEST}"


def layout(*layers: dict[str, bytes]) -> Layout:
    one = Layout()
    return one.name("x", one.image(*layers))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@contextlib.contextmanager
def web_proxy(upstream: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy as environments name them, for whatever host it is asked; its address, and what it was asked."""
    asked: list[str] = []

    class Relay(Handler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {urlsplit(self.path).netloc}")
            self.path = urlsplit(self.path).path
            forward(self, upstream)

        do_HEAD = do_GET

        def do_CONNECT(self) -> None:
            asked.append(f"CONNECT {self.path}")
            host, _, port = upstream.rpartition(":")
            with socket.create_connection((host, int(port))) as other:
                self.send_response(200)
                self.end_headers()
                up = threading.Thread(target=splice, args=(self.connection, other))
                up.start()
                splice(other, self.connection)
                up.join()
            self.close_connection = True

    with serving(Relay) as host:
        yield host, asked


def splice(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


async def test_a_proxy_of_the_environment_is_asked_but_not_for_this_machine(
    registry: Registry,
    store: ImageStore,
    settings: RegistrySettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = push_layout(registry, layout({"a": b"a"}), tmp_path / "l", "proxied:1")
    with web_proxy(registry.host) as (host, asked):
        monkeypatch.setenv("http_proxy", f"http://{host}")
        through = replace(settings, proxies=True, insecure=frozenset({FAR}))
        async with RegistryClient(through, timeout=5) as client:
            pulled = await pull(store, f"{FAR}/proxied:1", client=client)
            assert set(asked) == {f"GET {FAR}"}
            asked.clear()
            assert (await pull(store, name, client=client)).image.digest == pulled.image.digest
            assert asked == []


async def test_tls_goes_through_a_proxy_unseen(
    store: ImageStore, settings: RegistrySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    make_certificates(keys, names=f"IP:127.0.0.1,DNS:{FAR}")
    trusted = settings.certificates[0] / FAR
    trusted.mkdir(parents=True)
    (trusted / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
    tls = f"  tls: {{certificate: {keys}/server.crt, key: {keys}/server.key}}"
    with docker_registry(tmp_path / "registry", tls=tls) as registry:
        name = push_layout(registry, layout({"a": b"a"}), tmp_path / "l", "tunnelled:1")
        with web_proxy(name.partition("/")[0]) as (host, asked):
            monkeypatch.setenv("https_proxy", f"http://{host}")
            async with RegistryClient(replace(settings, proxies=True), timeout=5) as client:
                pulled = await pull(store, f"{FAR}/tunnelled:1", client=client)
        assert set(asked) == {f"CONNECT {FAR}:443"}
        assert store.resolve(f"{FAR}/tunnelled:1") == pulled.image
        store.tag(f"{FAR}/tunnelled:1", name)
        assert unchanged(store, name, settings=settings) is None, "TLS answers no plain HTTP"
        shutil.copytree(trusted, settings.certificates[0] / registry.host)
        assert unchanged(store, name, settings=settings) is not None
        (settings.certificates[0] / registry.host / "ca.crt").write_text("no certificate")
        assert unchanged(store, name, settings=settings) is None


@pytest.mark.parametrize("what", ["manifests", "blobs"])
async def test_a_redirect_from_tls_to_plain_http_is_refused(
    registry: Registry, store: ImageStore, settings: RegistrySettings, tmp_path: Path, what: str
) -> None:
    push_layout(registry, layout({"a": b"a"}), tmp_path / "l", "plain:1")
    keys = tmp_path / "keys"
    make_certificates(keys)

    class Redirect(Handler):
        def do_GET(self) -> None:
            if f"/{what}/" in self.path:
                self.reply(307, {"Location": f"http://{FAR}{self.path}"})
            else:
                forward(self, registry.host)

        do_HEAD = do_GET

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    with serving(Redirect, tls=context) as host:
        trusted = settings.certificates[0] / host
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
        async with RegistryClient(settings, timeout=5) as client:
            with pytest.raises(RegistryError, match=f"{host} redirects to {FAR} without TLS"):
                await pull(store, f"{host}/plain:1", client=client)
    check(store)


def until(condition: object, what: str) -> None:
    """Wait for another process to have come so far."""
    limit = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit, what
        time.sleep(0.01)


@pytest.fixture
def proxy(registry: Registry, tmp_path: Path) -> Iterator[Proxy]:
    push_layout(registry, layout(BIG, {"small": b"s"}), tmp_path / "shared", "shared/big:1")
    with harmful_proxy(registry.host) as running:
        yield running


@contextlib.contextmanager
def pulling(home: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    call = [sys.executable, "-c", SCRIPT, str(home), name]
    with subprocess.Popen(call, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def written(home: Path) -> int:
    """The size of the largest file there."""
    sizes = [0]
    for path in home.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)


def holds(home: Path, name: str) -> None:
    store = ImageStore(StateDirs.under(home), write_image=Concatenated())
    with store.rootfs(store.resolve(name), 1 << 30) as lease:
        assert lease.path.read_bytes() == layer_tar(BIG) + layer_tar({"small": b"s"})
    # The lease of a process that was killed goes with the next look for what nobody needs.
    assert store.prune().images == ()
    check(store)


def test_two_processes_download_a_layer_once(registry: Registry, proxy: Proxy, tmp_path: Path) -> None:
    home, name = tmp_path / "home", f"{proxy.host}/shared/big:1"

    def hold(handler: Handler, before: int) -> bool:
        until(lambda: proxy.count("GET .*/manifests/") >= 2, "the second process has not begun")
        return False

    proxy.harms[BLOB] = hold
    with pulling(home, name) as first, pulling(home, name) as second:
        assert [first.wait(60), second.wait(60)] == [0, 0]
    assert proxy.count("GET .*/blobs/") == 3, "a config and two layers, each once"
    holds(home, name)


def test_what_a_killed_process_had_downloaded_is_taken_up_by_the_one_that_waits(
    registry: Registry, proxy: Proxy, tmp_path: Path
) -> None:
    home, name = tmp_path / "home", f"{proxy.host}/shared/big:1"
    kept = 2 << 20

    def part(handler: Handler, before: int) -> bool:
        if before:
            return False
        status, headers, body = fetch(handler, registry.host)
        handler.send_response(status)
        for header, value in headers.items():
            handler.send_header(header, value)
        handler.end_headers()
        handler.wfile.write(body[:kept])
        until(lambda: written(home) >= kept // 2, "the first process has written nothing of what it got")
        until(lambda: proxy.count("GET .*/manifests/") >= 2, "the second process has not begun")
        first.kill()
        first.wait()
        drop(handler)
        return True

    proxy.harms[BLOB] = part
    with pulling(home, name) as first:
        until(lambda: proxy.count(BLOB) == 1, "the first process has not come to the layer")
        with pulling(home, name) as second:
            assert second.wait(60) == 0
    ranges = [one.headers.get("range", one.headers.get("Range")) for one in proxy.seen if BIG_DIGEST in one.path]
    assert (len(ranges), ranges[0]) == (2, None)
    begin, _, end = ranges[1].removeprefix("bytes=").partition("-")
    assert kept // 2 <= int(begin) <= kept
    assert int(end) == len(layer_tar(BIG)) - 1
    holds(home, name)
