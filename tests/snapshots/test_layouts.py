"""What a container has beside its root: copied with it, or refused by name before anything stands still."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firkin import AsyncContainer, Volume
from firkin.core.socket_relay import SocketRelay
from firkin.errors import InvalidInputError
from firkin.ext4 import make_empty
from firkin.oci import Image

pytestmark = pytest.mark.vm

REFUSED = """if True:
    import sys
    from firkin import Container
    from firkin.core.socket_relay import SocketRelay
    from firkin.errors import InvalidInputError
    what, path = sys.argv[1:]
    options = {
        "share": {"mounts": [f"{path}:/shared"]},
        "into": {"sockets": [SocketRelay.parse(f"{path}/sock:/run/sock")]},
        "out": {"sockets": [SocketRelay.parse(f"/run/sock:{path}/sock", into_guest=False)]},
    }[what]
    with Container.launch("busybox", ["sleep", "600"], **options) as container:
        for save in (lambda: container.snapshot("refused"), container.fork):
            try:
                save()
            except InvalidInputError as error:
                print(error.message)
"""


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("share", "a container with a live share ({path}) can't be saved"),
        ("into", "a container with a relayed socket (/run/sock) can't be saved"),
        ("out", "a container with a relayed socket (/run/sock) can't be saved"),
    ],
)
def test_what_can_not_be_saved_is_refused_while_it_runs(
    busybox_image: Image, tmp_path: Path, what: str, told: str
) -> None:
    # Whoever comes as far as to let it stand still is killed.
    environ = os.environ | {"FIRKIN_FAULT": "snapshot.quiesced=kill,save.stopped=kill"}
    command = [sys.executable, "-c", REFUSED, what, str(tmp_path)]
    done = subprocess.run(command, env=environ, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{told.format(path=tmp_path)}\n" * 2), done.stderr


async def test_it_can_be_saved_once_the_relay_has_ended(busybox_image: Image, tmp_path: Path) -> None:
    relay = SocketRelay.parse(f"{tmp_path}/sock:/run/sock")
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(tmp_path / "sock"))
        async with await AsyncContainer.launch("busybox", ["sleep", "600"], sockets=[relay]) as container:
            assert container.sockets == (relay,)
            with pytest.raises(InvalidInputError, match="relayed socket"):
                await container.fork()
            await container.stop_socket(relay)
            assert container.sockets == ()
            (clone,) = await container.fork()
            async with clone:
                # It may have one of its own, at the same place.
                await clone.relay_socket(relay)
                assert (await clone.run(["test", "-S", "/run/sock"])).returncode == 0


@pytest.fixture
def volume(busybox_image: Image) -> Iterator[Volume]:
    made = Volume.create(f"cloned-{os.getpid()}", size="64m")
    yield made
    made.remove()


async def test_volumes_and_writable_layers_are_copied(volume: Volume, busybox_image: Image, tmp_path: Path) -> None:
    layer, places = tmp_path / "layer", ("/volume", "/root")
    make_empty(layer, 64 << 20, journal=True)
    mounts = [f"{volume.name}:/volume"]
    write = "for at in /volume /root; do echo $0 >> $at/file; done; sync"
    async with await AsyncContainer.launch("busybox", ["sleep", "600"], mounts=mounts, writable_layer=layer) as source:
        await source.run(["sh", "-c", write, "source"], check=True)
        clones = await source.fork(2)
        try:
            for one in clones:
                await one.run(["sh", "-c", write, one.id], check=True)
            await source.run(["sh", "-c", write, "later"], check=True)
            for container, last in ((source, "later"), *((one, one.id) for one in clones)):
                for place in places:
                    told = await container.run(["cat", f"{place}/file"], text=True, check=True)
                    assert str(told.stdout).split() == ["source", last]
        finally:
            await asyncio.gather(*(one.aclose() for one in clones))
    # What clones write stays with them.
    async with await AsyncContainer.launch("busybox", ["sleep", "600"], mounts=mounts) as after:
        assert str((await after.run(["cat", "/volume/file"], text=True)).stdout).split() == ["source", "later"]
