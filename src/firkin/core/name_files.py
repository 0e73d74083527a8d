"""A container's own `/etc/hosts` and `/etc/resolv.conf`: written by the agent beside its root and bound over the
image's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from firkin.core.name_service import DnsConfig, HostsConfig, HostsEntry, configure_dns_request, configure_hosts_request
from firkin.core.spec import SpecMount
from firkin.network.plan import INSIDE

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from firkin.core.options import ContainerOptions

__all__ = ["name_mounts", "name_requests"]

_LOOPBACK = (
    HostsEntry("127.0.0.1", ("localhost",)),
    HostsEntry("::1", ("localhost", "ip6-localhost", "ip6-loopback")),
)
_OPTIONS = ("rbind", "rprivate", "nosuid", "noexec", "nodev")


def name_requests(options: ContainerOptions, root: str, hostname: str) -> list[Message]:
    """The agent's calls that write the files of the container whose root is `root`."""
    own = HostsEntry("127.0.1.1", (hostname,))
    requests: list[Message] = [configure_hosts_request(HostsConfig((*_LOOPBACK, own, *options.hosts)), root)]
    if (dns := _dns(options)) is not None:
        requests.append(configure_dns_request(dns, root))
    return requests


def name_mounts(options: ContainerOptions, root: str) -> list[SpecMount]:
    """The mounts that put them into place; none where the user mounts something there."""
    beside = root.removesuffix("/rootfs")
    files = {"/etc/hosts": f"{beside}/hosts"}
    if _dns(options) is not None:
        files["/etc/resolv.conf"] = f"{beside}/resolv.conf"
    taken = {str(mount.destination) for mount in options.mounts}
    return [SpecMount(path, "bind", source, _OPTIONS) for path, source in files.items() if path not in taken]


def _dns(options: ContainerOptions) -> DnsConfig | None:
    """What was asked for; where that names no server, or there is nothing, the network's own resolver."""
    if options.network == "none" or (options.dns is not None and options.dns.nameservers):
        return options.dns
    own = (INSIDE[4].gateway_text,)
    return replace(options.dns, nameservers=own) if options.dns is not None else DnsConfig(own)
