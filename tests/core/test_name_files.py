"""`/etc/hosts` and `/etc/resolv.conf` of a container."""

from __future__ import annotations

import pytest

import firkin
from firkin.core.name_files import name_mounts
from firkin.core.name_service import DnsConfig
from firkin.core.option_inputs import container_options
from firkin.oci import Image


@pytest.mark.vm
@pytest.mark.parametrize("read_only", [False, True])
def test_hosts_and_dns(busybox_image: Image, read_only: bool) -> None:
    result = firkin.run(
        "busybox",
        ["sh", "-c", "cat /etc/hosts /etc/resolv.conf; hostname"],
        text=True,
        hostname="web",
        hosts=["db:192.0.2.9"],
        dns=DnsConfig(("192.0.2.1",), search=("svc.local",)),
        read_only=read_only,
    )
    assert result.stdout == (
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 web\n192.0.2.9 db\n"
        "nameserver 192.0.2.1\nsearch svc.local\nweb\n"
    )


def test_a_mount_of_the_users_takes_the_place_of_the_file() -> None:
    options = container_options(["true"], mounts=["type=tmpfs,destination=/etc/hosts"], dns=DnsConfig(("192.0.2.1",)))
    assert [mount.destination for mount in name_mounts(options, "/run/container/a/rootfs")] == ["/etc/resolv.conf"]
