"""Scenarios: folders and files of the host in a container, live, and read-only roots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import firkin
from firkin.core.name_service import DnsConfig
from firkin.oci import Image

pytestmark = pytest.mark.vm
scenario = pytest.mark.scenario


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is mounted: a folder with a file, and files beside each other."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "data").mkdir()
    (folder / "data" / "from-host").write_text("hello from the host\n")
    for name in ("written", "kept", "secret"):
        (folder / name).write_text(f"{name}\n")
    (folder / "link").symlink_to("written")
    return folder


@pytest.fixture(scope="module")
def mounted(host: Path, busybox_image: Image) -> Iterator[firkin.Container]:
    """A container with everything mounted, at places that its image does not have, below a root that is read-only."""
    mounts = [f"{host}/data:/mnt/one", f"{host}/data:/deep/er/two", f"{host}/link:/etc/own", f"{host}/kept:/kept:ro"]
    with firkin.Container.launch(
        "busybox",
        ["sleep", "600"],
        mounts=mounts,
        hosts=["there:192.0.2.9"],
        dns=DnsConfig(("192.0.2.1",)),
        read_only=True,
        privileged=True,
    ) as container:
        yield container


def sh(container: firkin.Container, script: str) -> str:
    done = container.run(["sh", "-c", script], text=True)
    return f"{done.stdout}{done.stderr}"


@scenario("container mount")
def test_both_sides_see_what_the_other_does(mounted: firkin.Container, host: Path) -> None:
    assert sh(mounted, "cat /mnt/one/from-host; echo back > /mnt/one/from-guest") == "hello from the host\n"
    assert (host / "data" / "from-guest").read_text() == "back\n"
    (host / "data" / "later").write_text("a")
    assert sh(mounted, "cat /mnt/one/later") == "a"
    (host / "data" / "later").write_text("another")
    assert sh(mounted, "cat /mnt/one/later; rm /mnt/one/later") == "another"
    assert not (host / "data" / "later").exists()


@scenario("container duplicate virtiofs mount")
def test_one_folder_at_two_places(mounted: firkin.Container) -> None:
    assert sh(mounted, "echo x > /mnt/one/x; cat /deep/er/two/x; rm /deep/er/two/x; ls /mnt/one/x").startswith("x\n")
    assert sh(mounted, "grep -c virtiofs /proc/mounts") == "4\n"
    # Two folders, two files in two ways: one daemon for each source.
    assert sh(mounted, "awk '$3 == \"virtiofs\" {print $1}' /proc/mounts | sort -u | wc -l") == "3\n"


@scenario("container single file mount")
def test_a_file_and_nothing_beside_it(mounted: firkin.Container) -> None:
    assert sh(mounted, "cat /etc/own /kept") == "written\nkept\n"
    assert "secret" not in sh(mounted, "cat /proc/mounts; ls -R /mnt /etc")


@scenario("container single file mount write-back")
def test_what_is_written_to_a_file_comes_back(mounted: firkin.Container, host: Path) -> None:
    # It was named through a symbolic link, which stays one.
    assert sh(mounted, "echo more >> /etc/own; cat /etc/own") == "written\nmore\n"
    assert (host / "written").read_text() == "written\nmore\n"
    assert (host / "link").is_symlink()
    (host / "written").write_text("changed\n")
    assert sh(mounted, "cat /etc/own") == "changed\n"
    (host / "written").write_text("written\n")


@scenario("container single file mount read-only")
def test_a_read_only_file_stays_as_it_is(mounted: firkin.Container, host: Path) -> None:
    assert "Read-only file system" in sh(mounted, "echo no > /kept")
    # Root in a privileged container may change its mount, and is refused by the host.
    assert "Read-only file system" in sh(mounted, "mount -o remount,rw,bind /kept; echo no > /kept")
    assert (host / "kept").read_text() == "kept\n"


@scenario("container read-only rootfs")
def test_the_root_is_read_only_and_mounts_are_not(mounted: firkin.Container) -> None:
    assert "Read-only file system" in sh(mounted, "echo no > /no")
    assert sh(mounted, "echo yes > /mnt/one/yes; cat /mnt/one/yes; rm /mnt/one/yes") == "yes\n"


@scenario("container read-only rootfs hosts file")
def test_a_read_only_root_has_its_hosts(mounted: firkin.Container) -> None:
    assert "192.0.2.9 there" in sh(mounted, "cat /etc/hosts")


@scenario("container read-only rootfs DNS")
def test_a_read_only_root_has_its_name_servers(mounted: firkin.Container) -> None:
    assert "nameserver 192.0.2.1" in sh(mounted, "cat /etc/resolv.conf; touch /etc/resolv.conf.d")
