"""A registry that breaks, lies and stalls: each fault is retried or refused in one line, and the store stays valid."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from firkin.errors import ImageError, RegistryError
from firkin.oci import ImageStore
from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.credentials import Credentials
from firkin.oci.registry.download import Pace
from firkin.oci.registry.pull import pull
from firkin.types.state import StateDirs
from tests.oci.builders import Concatenated, Layout, layer_tar, sha256
from tests.oci.registry.conftest import push_layout
from tests.oci.registry.servers import Handler, Proxy, Registry, drop, fetch, forward, harmful_proxy, serving

ROOT = Path(__file__).resolve().parents[3]
BIG = {"big": os.urandom(4 << 20)}
TAR = layer_tar(BIG)
BLOB = f"GET .*/blobs/{sha256(TAR)}"
MANIFEST = "GET .*/manifests/"


@pytest.fixture(scope="module")
def image(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    layout = Layout()
    layout.name("x", layout.image(BIG, {"small": b"s"}))
    push_layout(registry, layout, tmp_path_factory.mktemp("faults"), "faults/image:1")
    return "faults/image:1"


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    with harmful_proxy(registry.host) as running:
        yield running


def check(store: ImageStore) -> None:
    assert all(sha256(store.content.path(digest).read_bytes()) == digest for digest in store.content)
    assert not list((store.content.root / "leases").iterdir())


async def pulls(store: ImageStore, proxy: Proxy, image: str, client: RegistryClient) -> None:
    pulled = await pull(store, f"{proxy.host}/{image}", convert=1 << 30, client=client)
    assert pulled.rootfs is not None
    with pulled.rootfs as lease:
        assert lease.path.read_bytes() == TAR + layer_tar({"small": b"s"})
    check(store)


def cut(handler: Handler, upstream: str, count: int) -> bool:
    """The registry's answer, the connection dropped after `count` bytes of its body."""
    status, headers, body = fetch(handler, upstream)
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body[:count])
    drop(handler)
    return True


async def test_a_blob_is_taken_up_where_its_connection_broke(
    registry: Registry, store: ImageStore, proxy: Proxy, image: str, client: RegistryClient, waits: list[float]
) -> None:
    lengths = [3_000_000, 500_000]
    proxy.harms[BLOB] = lambda handler, before: before < 2 and cut(handler, registry.host, lengths[before])
    await pulls(store, proxy, image, client)
    ranges = [seen.headers.get("range") for seen in proxy.seen if re.search(BLOB, f"{seen.method} {seen.path}")]
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(asked and asked.startswith("bytes=") for asked in ranges[1:])
    assert len(waits) == 2


async def test_a_registry_without_ranges_sends_it_all_again(
    registry: Registry, store: ImageStore, proxy: Proxy, image: str, client: RegistryClient
) -> None:
    def harm(handler: Handler, before: int) -> bool:
        if before == 0:
            return cut(handler, registry.host, 2 << 20)
        del handler.headers["range"]
        forward(handler, registry.host)
        return True

    proxy.harms[BLOB] = harm
    await pulls(store, proxy, image, client)
    assert proxy.count(BLOB) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_busy_registries_are_asked_again_when_they_say(
    store: ImageStore, proxy: Proxy, image: str, client: RegistryClient, waits: list[float], status: int
) -> None:
    def harm(handler: Handler, before: int) -> bool:
        if before < 2:
            handler.reply(status, {"Retry-After": "7"} if status == 429 else {})
        return before < 2

    proxy.harms = {BLOB: harm, MANIFEST: harm}
    await pulls(store, proxy, image, client)
    # Two for the manifest, two for the blob.
    assert waits == [7.0] * 4 if status == 429 else len(waits) == 4


async def test_it_gives_up_in_one_line_and_the_next_pull_resumes(
    registry: Registry, store: ImageStore, proxy: Proxy, image: str, client: RegistryClient, waits: list[float]
) -> None:
    proxy.harms[BLOB] = lambda handler, before: cut(handler, registry.host, 1000)
    with pytest.raises(RegistryError, match=r"can't fetch sha256:.*try again") as caught:
        await pull(store, f"{proxy.host}/{image}", convert=1 << 30, client=client)
    assert "\n" not in str(caught.value)
    assert len(waits) == 3
    assert list(store.images()) == []
    check(store)
    proxy.harms.clear()
    proxy.seen.clear()
    await pulls(store, proxy, image, client)
    asked = next(seen for seen in proxy.seen if re.search(BLOB, f"{seen.method} {seen.path}"))
    assert asked.headers["range"] == f"bytes=4000-{len(TAR) - 1}"


async def test_wrong_content_is_refused(
    registry: Registry, store: ImageStore, proxy: Proxy, image: str, client: RegistryClient
) -> None:
    def harm(handler: Handler, before: int) -> bool:
        status, headers, body = fetch(handler, registry.host)
        handler.reply(status, headers, body[:-1] + b"!")
        return True

    proxy.harms[BLOB] = harm
    with pytest.raises(ImageError, match="hashes to"):
        await pull(store, f"{proxy.host}/{image}", convert=1 << 30, client=client)
    proxy.harms = {MANIFEST: harm}
    with pytest.raises(ImageError, match="hashes to"):
        await pull(store, f"{proxy.host}/{image}", client=client)
    check(store)
    assert list(store.rootfs_cache) == []
    proxy.harms.clear()
    await pulls(store, proxy, image, client)


async def test_what_an_earlier_try_left_wrong_is_fetched_anew(
    registry: Registry, store: ImageStore, proxy: Proxy, image: str, client: RegistryClient
) -> None:
    folder = store.content.root / "ingest"
    folder.mkdir(parents=True)
    (folder / sha256(TAR).replace(":", "-")).write_bytes(b"garbage of an earlier try")
    await pulls(store, proxy, image, client)
    assert proxy.count(BLOB) == 2


@pytest.mark.parametrize(
    ("extra", "match"), [(1, "another size|larger than"), (-1, "can't fetch")], ids=["longer", "shorter"]
)
async def test_a_blob_of_another_size_is_refused(
    registry: Registry, store: ImageStore, proxy: Proxy, image: str, client: RegistryClient, extra: int, match: str
) -> None:
    def harm(handler: Handler, before: int) -> bool:
        status, headers, body = fetch(handler, registry.host)
        body = body + b"x" if extra > 0 else body[:-1]
        handler.reply(status, {**headers, "Content-Length": str(len(body))}, body)
        return True

    proxy.harms[BLOB] = harm
    with pytest.raises(ImageError, match=match):
        await pull(store, f"{proxy.host}/{image}", client=client)
    check(store)


async def test_oversized_manifests_and_configs_are_refused_unread(
    store: ImageStore, proxy: Proxy, image: str, client: RegistryClient, dirs: StateDirs
) -> None:
    def endless(handler: Handler, before: int) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with contextlib.suppress(OSError):  # The client hangs up.
            while True:
                handler.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        drop(handler)
        return True

    proxy.harms[MANIFEST] = endless
    with pytest.raises(RegistryError, match="is larger than 4194304 bytes"):
        await pull(store, f"{proxy.host}/{image}", client=client)
    proxy.harms[MANIFEST] = lambda handler, before: handler.reply(200, {"Content-Length": str(1 << 40)}) or True
    with pytest.raises(RegistryError, match="is larger than"):
        await pull(store, f"{proxy.host}/{image}", client=client)
    proxy.harms.clear()
    small = ImageStore(dirs, limits=replace(store.limits, config=100))
    with pytest.raises(ImageError, match="config is larger than 100"):
        await pull(small, f"{proxy.host}/{image}", client=client)
    check(store)


async def test_a_slow_trickle_and_silence_end(
    registry: Registry, store: ImageStore, proxy: Proxy, image: str, settings: object, client: RegistryClient
) -> None:
    def trickle(handler: Handler, before: int) -> bool:
        status, headers, body = fetch(handler, registry.host)
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        for byte in body:
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                break
            time.sleep(0.01)
        handler.close_connection = True
        return True

    proxy.harms[BLOB] = trickle
    with pytest.raises(RegistryError, match=r"can't fetch .* bytes in"):
        await pull(store, f"{proxy.host}/{image}", client=client, pace=Pace(bytes=1 << 20, seconds=0.05))
    async with RegistryClient(client.settings, retry=replace(client.transport.retry, attempts=2), timeout=0.2) as hasty:
        proxy.harms[MANIFEST] = lambda handler, before: time.sleep(1) or False
        with pytest.raises(RegistryError, match="no answer in time"):
            await pull(store, f"{proxy.host}/{image}", client=hasty)
    check(store)


async def test_redirects_leak_no_credentials_and_do_not_loop(
    registry: Registry, store: ImageStore, proxy: Proxy, image: str, client: RegistryClient
) -> None:
    blob_path = f"/v2/faults/image/blobs/{sha256(TAR)}"

    def basic(handler: Handler, before: int) -> bool:
        if not handler.headers.get("Authorization"):
            handler.reply(401, {"WWW-Authenticate": 'Basic realm="x"'})
            return True
        if handler.path == blob_path:
            handler.reply(307, {"Location": f"http://{other.host}{blob_path}?signed=1"})
            return True
        return False

    proxy.harms["."] = basic
    with harmful_proxy(registry.host) as other:
        secret = Credentials("user", "password")
        async with RegistryClient(client.settings, credentials=secret, retry=client.transport.retry) as logged_in:
            await pulls(store, proxy, image, logged_in)
            assert [seen.headers.get("authorization") for seen in other.seen] == [None]
            store.remove(f"{proxy.host}/{image}", force=True)
            proxy.harms["."] = lambda handler, before: handler.reply(307, {"Location": handler.path}) or True
            with pytest.raises(RegistryError, match="redirects more than"):
                await pull(store, f"{proxy.host}/{image}", client=logged_in)
            proxy.harms["."] = lambda handler, before: handler.reply(307, {"Location": "file:///etc/passwd"}) or True
            with pytest.raises(RegistryError, match="no web address"):
                await pull(store, f"{proxy.host}/{image}", client=logged_in)
    check(store)


async def test_what_is_no_registry_is_refused(store: ImageStore, client: RegistryClient) -> None:
    class Page(Handler):
        def do_GET(self) -> None:
            self.reply(200, {"Content-Type": "text/html"}, b"<html>hello</html>")

    with serving(Page) as host, pytest.raises(ImageError, match="not JSON"):
        await pull(store, f"{host}/a:1", client=client)
    check(store)


SCRIPT = """
import asyncio, sys
from pathlib import Path
from firkin.oci import ImageStore
from firkin.oci.registry.client import RegistryClient
from firkin.oci.registry.pull import pull
from firkin.oci.registry.settings import RegistrySettings
from firkin.types.state import StateDirs
from tests.oci.builders import Concatenated
home, name = sys.argv[1:]
async def main():
    async with RegistryClient(RegistrySettings(proxies=False)) as client:
        store = ImageStore(StateDirs.under(Path(home)), write_image=Concatenated())
        await pull(store, name, convert=1 << 30, client=client)
asyncio.run(main())
"""
FAULTS = ["oci.pull.manifest", "oci.pull.blobs", "oci.ingest.partial", "oci.ingest.flushed", "oci.convert.layer"]
FAULTS += ["oci.reference.written"]


def pulled_by_another(home: Path, name: str, fault: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home), name],
        env={**os.environ, "FIRKIN_FAULT": fault, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("fault", FAULTS)
async def test_killed_anywhere_the_second_pull_succeeds(
    proxy: Proxy, image: str, client: RegistryClient, tmp_path: Path, fault: str
) -> None:
    home = tmp_path / "home"
    ended = pulled_by_another(home, f"{proxy.host}/{image}", f"{fault}=kill")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    store = ImageStore(StateDirs.under(home), write_image=Concatenated())
    assert list(store.images()) == []
    store.rootfs_cache.sweep()
    await pulls_after_kill(store, proxy, image, client)


async def pulls_after_kill(store: ImageStore, proxy: Proxy, image: str, client: RegistryClient) -> None:
    pulled = await pull(store, f"{proxy.host}/{image}", convert=1 << 30, client=client)
    assert pulled.rootfs is not None
    pulled.rootfs.release()
    store.prune()
    check(store)
