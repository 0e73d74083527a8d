"""Scenarios: a disk image that keeps what a container writes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import firkin
from firkin.core.name_service import DnsConfig
from firkin.oci import Image

pytestmark = [pytest.mark.vm, pytest.mark.needs_tool("mkfs.ext4")]
scenario = pytest.mark.scenario


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("layer") / "layer.ext4"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True, timeout=60)
    return path


@pytest.fixture(scope="module")
def second(layer: Path, busybox_image: Image) -> Iterator[firkin.Container]:
    """A container on the layer that another has written to, and was gone."""
    script = "echo kept > /kept; echo changed > /etc/passwd; rm /etc/group; mkdir -p /new/folder"
    firkin.run("busybox", ["sh", "-c", script], writable_layer=layer, check=True)
    names: dict[str, Any] = {"hosts": ["there:192.0.2.9"], "dns": DnsConfig(("192.0.2.1",))}
    with firkin.Container.launch("busybox", ["sleep", "600"], writable_layer=layer, **names) as container:
        yield container


@scenario("container writable layer")
def test_what_was_written_is_kept(second: firkin.Container) -> None:
    script = "cat /kept /etc/passwd; [ -e /etc/group ] || echo gone; [ -d /new/folder ] && echo made"
    assert second.run(["sh", "-c", script], text=True).stdout == "kept\nchanged\ngone\nmade\n"


@scenario("container writable layer reads from lower")
def test_the_image_shows_through(second: firkin.Container) -> None:
    done = second.run(["sh", "-c", "busybox | head -1; grep ' / ' /proc/mounts"], text=True, check=True)
    first, mount = str(done.stdout).splitlines()
    assert first.startswith("BusyBox")
    assert mount.startswith("overlay / overlay rw")


@scenario("container writable layer with ro lower")
def test_the_image_stays_as_it_was(second: firkin.Container) -> None:
    # The image itself is shared with containers that have no layer, and none of them sees a change.
    clean = firkin.run("busybox", ["sh", "-c", "cat /etc/passwd /etc/group; ls /"], text=True, check=True)
    assert "changed" not in str(clean.stdout)
    assert not {"kept", "new"} & set(str(clean.stdout).split())


@scenario("container writable layer DNS and hosts")
def test_names_are_the_containers_own(second: firkin.Container) -> None:
    names = str(second.run(["cat", "/etc/hosts", "/etc/resolv.conf"], text=True, check=True).stdout)
    assert "192.0.2.9 there" in names
    assert "nameserver 192.0.2.1" in names
