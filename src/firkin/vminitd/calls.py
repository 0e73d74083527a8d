"""One method for each call of proto/firkin/agent.proto, which documents what each does and means.

Arguments are the message's fields, with the proto's defaults; times are nanoseconds, sizes bytes, modes and errnos
Linux's. Every method takes `timeout` in seconds and returns a `Call` to await.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from firkin.vminitd.rpc import Call

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from firkin.vminitd._generated import agent_pb2 as pb

__all__ = ["Calls"]


def _messages() -> Any:
    """The generated module, imported at the first call: protobuf is slow to import."""
    from firkin.vminitd._generated import agent_pb2

    return agent_pb2


class Calls:
    """The typed calls of the agent; `Agent` adds how they are sent."""

    def _submit(self, call: Message, result: str, timeout: float | None) -> Call[Any]:
        raise NotImplementedError

    def resume(
        self,
        entropy: bytes,
        realtime_ns: int,
        *,
        hostname: str = "",
        machine_id: str = "",
        epoch: int = 0,
        networks: Iterable[pb.NetworkIdentity] = (),
        thaw: bool = False,
        timeout: float | None = None,
    ) -> Call[pb.Done]:
        """The first call after a boot or a restore: fresh entropy (at least 32 bytes), the clock, a new identity."""
        return self._submit(
            _messages().Resume(
                entropy=entropy,
                realtime_ns=realtime_ns,
                hostname=hostname,
                machine_id=machine_id,
                epoch=epoch,
                networks=networks,
                thaw=thaw,
            ),
            "done",
            timeout,
        )

    def quiesce(
        self, *, drop_caches: bool = False, detach_stdio: bool = False, timeout: float | None = None
    ) -> Call[pb.Done]:
        """Freeze all containers and sync; then only `resume` is of use."""
        return self._submit(_messages().Quiesce(drop_caches=drop_caches, detach_stdio=detach_stdio), "done", timeout)

    def info(self, *, timeout: float | None = None) -> Call[pb.InfoReply]:
        """Versions, clocks and features of the agent and its kernel."""
        return self._submit(_messages().Info(), "info", timeout)

    def set_time(self, realtime_ns: int, *, slew: bool = False, timeout: float | None = None) -> Call[pb.Done]:
        """Set CLOCK_REALTIME, or slew it where the difference is small."""
        return self._submit(_messages().SetTime(realtime_ns=realtime_ns, slew=slew), "done", timeout)

    def sync(self, *, timeout: float | None = None) -> Call[pb.Done]:
        """Write all dirty pages to the disks."""
        return self._submit(_messages().Sync(), "done", timeout)

    def poweroff(self, *, timeout: float | None = None) -> Call[pb.Done]:
        """Sync and power the VM off; the link ends with it."""
        return self._submit(_messages().Poweroff(), "done", timeout)

    def mount(
        self,
        type: str,
        source: str,
        destination: str,
        *,
        options: Iterable[str] = (),
        mkdir: bool = False,
        timeout: float | None = None,
    ) -> Call[pb.Done]:
        """Mount in the agent's namespace; a source `serial:disk0` names the VM's disk of that serial."""
        return self._submit(
            _messages().Mount(type=type, source=source, destination=destination, options=options, mkdir=mkdir),
            "done",
            timeout,
        )

    def umount(self, path: str, *, detach: bool = False, timeout: float | None = None) -> Call[pb.Done]:
        """Undo a mount of the agent's namespace."""
        return self._submit(_messages().Umount(path=path, detach=detach), "done", timeout)

    def mkdir(
        self,
        path: str,
        *,
        mode: int = 0o755,
        parents: bool = False,
        container: str = "",
        uid: int = 0,
        gid: int = 0,
        timeout: float | None = None,
    ) -> Call[pb.Done]:
        """Make a folder, below the container's root where one is named."""
        return self._submit(
            _messages().Mkdir(path=path, mode=mode, parents=parents, container=container, uid=uid, gid=gid),
            "done",
            timeout,
        )

    def write_file(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o644,
        create_parents: bool = False,
        append: bool = False,
        container: str = "",
        timeout: float | None = None,
    ) -> Call[pb.Done]:
        """Write a small file whole (at most about 1 MiB), below the container's root where one is named."""
        return self._submit(
            _messages().WriteFile(
                path=path, content=content, mode=mode, create_parents=create_parents, append=append, container=container
            ),
            "done",
            timeout,
        )

    def stat(
        self, path: str, *, follow: bool = False, container: str = "", timeout: float | None = None
    ) -> Call[pb.StatReply]:
        """What lstat(2), or with `follow` stat(2), says; below the container's root where one is named."""
        return self._submit(_messages().Stat(path=path, follow=follow, container=container), "stat", timeout)

    def read_ahead(self, container: str, paths: Iterable[str], *, timeout: float | None = None) -> Call[pb.Done]:
        """Get files below the container's root, and the names in folders, into the guest's caches."""
        return self._submit(_messages().ReadAhead(container=container, paths=paths), "done", timeout)

    def copy_in(
        self,
        directory: str,
        port: int,
        *,
        container: str = "",
        create_parents: bool = False,
        preserve_owner: bool = False,
        uid: int = 0,
        gid: int = 0,
        timeout: float | None = None,
    ) -> Call[pb.CopyReply]:
        """Unpack the tar that the host sends on the stream which the guest opens to `port`."""
        return self._submit(
            _messages().CopyIn(
                container=container,
                directory=directory,
                port=port,
                create_parents=create_parents,
                preserve_owner=preserve_owner,
                uid=uid,
                gid=gid,
            ),
            "copy",
            timeout,
        )

    def copy_out(
        self, path: str, port: int, *, container: str = "", follow: bool = False, timeout: float | None = None
    ) -> Call[pb.CopyReply]:
        """Send `path` as a tar on the stream that the guest opens to `port`."""
        return self._submit(
            _messages().CopyOut(container=container, path=path, port=port, follow=follow), "copy", timeout
        )

    def sysctl(self, values: Mapping[str, str], *, timeout: float | None = None) -> Call[pb.Done]:
        """Write kernel parameters by their dotted names."""
        return self._submit(_messages().Sysctl(values=values), "done", timeout)

    def create_process(
        self,
        container: str,
        process: str,
        spec_json: bytes,
        *,
        stdin_port: int = 0,
        stdout_port: int = 0,
        stderr_port: int = 0,
        start: bool = False,
        pty_columns: int = 0,
        pty_rows: int = 0,
        parked: bool = False,
        timeout: float | None = None,
    ) -> Call[pb.ProcessStarted | pb.Done]:
        """Make a process of an OCI specification; with `start` it runs at once and the answer has its pid.

        `parked`: the container that `park` made becomes this one, and `spec_json` is the rest of its specification.
        """
        return self._submit(
            _messages().CreateProcess(
                container=container,
                process=process,
                spec_json=spec_json,
                stdin_port=stdin_port,
                stdout_port=stdout_port,
                stderr_port=stderr_port,
                start=start,
                pty_columns=pty_columns,
                pty_rows=pty_rows,
                parked=parked,
            ),
            "",
            timeout,
        )

    def park(self, spec_json: bytes, *, pilot: bool = False, timeout: float | None = None) -> Call[pb.Done]:
        """Make a container that waits for its root and its first process; with a `pilot` to go ahead of it."""
        return self._submit(_messages().Park(spec_json=spec_json, pilot=pilot), "done", timeout)

    def park_root(self, container: str, mounts_json: bytes, *, timeout: float | None = None) -> Call[pb.Done]:
        """Give the parked container the root of `container`, and bind mounts in it, before there is a program."""
        return self._submit(_messages().ParkRoot(container=container, mounts_json=mounts_json), "done", timeout)

    def start_process(self, container: str, process: str, *, timeout: float | None = None) -> Call[pb.ProcessStarted]:
        """Start a process made without `start`."""
        return self._submit(_messages().StartProcess(container=container, process=process), "process_started", timeout)

    def wait_process(self, container: str, process: str, *, timeout: float | None = None) -> Call[pb.ProcessExit]:
        """Answered when the process has ended and all it wrote was handed to the link."""
        return self._submit(_messages().WaitProcess(container=container, process=process), "process_exit", timeout)

    def kill_process(
        self, container: str, process: str, signal: int, *, all: bool = False, timeout: float | None = None
    ) -> Call[pb.Done]:
        """Send a signal to one process, or to all of the container."""
        return self._submit(
            _messages().KillProcess(container=container, process=process, signal=signal, all=all), "done", timeout
        )

    def resize_process(
        self, container: str, process: str, columns: int, rows: int, *, timeout: float | None = None
    ) -> Call[pb.Done]:
        """Set the size of the process's terminal."""
        return self._submit(
            _messages().ResizeProcess(container=container, process=process, columns=columns, rows=rows), "done", timeout
        )

    def delete_process(self, container: str, process: str, *, timeout: float | None = None) -> Call[pb.Done]:
        """Forget an ended process; for "init" the container goes with it."""
        return self._submit(_messages().DeleteProcess(container=container, process=process), "done", timeout)

    def close_stdin(self, container: str, process: str, *, timeout: float | None = None) -> Call[pb.Done]:
        """Close the process's standard input."""
        return self._submit(_messages().CloseStdin(container=container, process=process), "done", timeout)

    def attach_process(
        self,
        container: str,
        process: str,
        *,
        stdin_port: int = 0,
        stdout_port: int = 0,
        stderr_port: int = 0,
        timeout: float | None = None,
    ) -> Call[pb.Done]:
        """Give a process whose stdio streams are gone new ones."""
        return self._submit(
            _messages().AttachProcess(
                container=container,
                process=process,
                stdin_port=stdin_port,
                stdout_port=stdout_port,
                stderr_port=stderr_port,
            ),
            "done",
            timeout,
        )

    def statistics(self, *, container: str = "", timeout: float | None = None) -> Call[pb.StatisticsReply]:
        """cgroup files of a container, or of the VM with some of /proc."""
        return self._submit(_messages().Statistics(container=container), "statistics", timeout)

    def update_resources(
        self, container: str, cgroup: Mapping[str, str], *, timeout: float | None = None
    ) -> Call[pb.Done]:
        """Write cgroup v2 files of a container, by name."""
        return self._submit(_messages().UpdateResources(container=container, cgroup=cgroup), "done", timeout)

    def freeze(self, container: str, *, timeout: float | None = None) -> Call[pb.Done]:
        """Freeze a container's processes; answered when they are."""
        return self._submit(_messages().Freeze(container=container), "done", timeout)

    def thaw(self, container: str, *, timeout: float | None = None) -> Call[pb.Done]:
        """Let a frozen container go on."""
        return self._submit(_messages().Thaw(container=container), "done", timeout)

    def set_link(
        self, name: str, *, up: bool = False, mtu: int = 0, mac: bytes = b"", timeout: float | None = None
    ) -> Call[pb.Done]:
        """Bring a network interface up or down, set its MTU and address."""
        return self._submit(_messages().SetLink(name=name, up=up, mtu=mtu, mac=mac), "done", timeout)

    def add_address(self, link: str, address: str, *, timeout: float | None = None) -> Call[pb.Done]:
        """Add an address with its prefix length to an interface."""
        return self._submit(_messages().AddAddress(link=link, address=address), "done", timeout)

    def add_route(
        self, link: str, *, destination: str = "", gateway: str = "", timeout: float | None = None
    ) -> Call[pb.Done]:
        """Add a route; the default one where `destination` is ""."""
        return self._submit(_messages().AddRoute(link=link, destination=destination, gateway=gateway), "done", timeout)

    def configure_dns(
        self,
        location: str,
        *,
        nameservers: Iterable[str] = (),
        domain: str | None = None,
        search_domains: Iterable[str] = (),
        options: Iterable[str] = (),
        timeout: float | None = None,
    ) -> Call[pb.Done]:
        """Write etc/resolv.conf below `location`."""
        return self._submit(
            _messages().ConfigureDns(
                location=location,
                nameservers=nameservers,
                domain=domain,
                search_domains=search_domains,
                options=options,
            ),
            "done",
            timeout,
        )

    def configure_hosts(
        self,
        location: str,
        *,
        entries: Iterable[pb.HostsEntry] = (),
        comment: str | None = None,
        timeout: float | None = None,
    ) -> Call[pb.Done]:
        """Write etc/hosts below `location`."""
        return self._submit(
            _messages().ConfigureHosts(location=location, entries=entries, comment=comment), "done", timeout
        )

    def vsock_listen(self, port: int, *, timeout: float | None = None) -> Call[pb.Done]:
        """Listen on an AF_VSOCK port in the guest; each connection is a stream opened to that port of the host."""
        return self._submit(_messages().VsockListen(port=port), "done", timeout)

    def proxy_socket(
        self,
        id: str,
        path: str,
        port: int,
        *,
        container: str = "",
        into_guest: bool = False,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        timeout: float | None = None,
    ) -> Call[pb.Done]:
        """Relay a Unix socket into or out of a container."""
        return self._submit(
            _messages().ProxySocket(
                id=id, container=container, path=path, port=port, into_guest=into_guest, mode=mode, uid=uid, gid=gid
            ),
            "done",
            timeout,
        )

    def stop_proxy(self, id: str, *, timeout: float | None = None) -> Call[pb.Done]:
        """End a relay, named by its id or "vsock:PORT"."""
        return self._submit(_messages().StopProxy(id=id), "done", timeout)
