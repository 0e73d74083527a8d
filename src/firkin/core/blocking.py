"""The sync face: the same calls as the engine's, driven on its loop thread. A test holds the signatures together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, Unpack

from firkin.core.capture import CAPTURE_LIMIT
from firkin.core.engine import engine
from firkin.core.exit import CompletedProcess, ExitStatus
from firkin.core.option_inputs import ExecInputs, OptionInputs
from firkin.types import PtySize, Signal, Size, Stdio
from firkin.types.stdio import DEFAULT_PTY_SIZE

if TYPE_CHECKING:
    from firkin.core.container import AsyncContainer
    from firkin.core.copy.options import GetOptions, HostSource, HostTarget, PutOptions
    from firkin.core.copy.peer import FileStat
    from firkin.core.copy.report import CopyReport
    from firkin.core.process import AsyncProcess
    from firkin.core.publication import PortPublication
    from firkin.core.socket_relay import SocketRelay
    from firkin.core.stats import Stats
    from firkin.oci.registry.progress import Progress
    from firkin.types import ProcessId, StateDirs
    from firkin.vminitd.stream import Stream
    from firkin.vmm.save import SaveReport
    from firkin.vmm.timings import Timings

__all__ = ["Container", "Pipe", "Process", "run"]


class Pipe:
    """One of a process's standard streams that was asked for as PIPED."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def read(self, limit: int = 65536) -> bytes:
        """Up to `limit` bytes, as soon as there are any; empty at the end."""
        return engine().call(self._stream.read(limit))

    def read_all(self) -> bytes:
        """Everything up to the end."""
        return b"".join(iter(self.read, b""))

    def write(self, data: bytes) -> None:
        """Write all of `data`; waits while the reader is behind."""
        engine().call(self._stream.write(data))

    def close(self) -> None:
        """No more will be written (half-close)."""
        engine().call(self._stream.end())


class Process:
    """A process of a container; see `AsyncProcess`."""

    def __init__(self, process: AsyncProcess) -> None:
        self._process = process

    @property
    def id(self) -> ProcessId:
        """Its name in the container."""
        return self._process.id

    @property
    def pid(self) -> int:
        """Its number in the VM."""
        return self._process.pid

    @property
    def status(self) -> ExitStatus | None:
        """How it ended, once that is known."""
        return self._process.status

    @property
    def stdin(self) -> Pipe | None:
        """What it reads, if PIPED; with a terminal, the terminal both ways."""
        return None if self._process.stdin is None else Pipe(self._process.stdin)

    @property
    def stdout(self) -> Pipe | None:
        """What it writes, if PIPED."""
        return None if self._process.stdout is None else Pipe(self._process.stdout)

    @property
    def stderr(self) -> Pipe | None:
        """What it writes to its standard error, if PIPED."""
        return None if self._process.stderr is None else Pipe(self._process.stderr)

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """As `AsyncProcess.wait`."""
        return engine().call(self._process.wait(timeout))

    def kill(self, signal: Signal | int | str = 9) -> None:
        """As `AsyncProcess.kill`."""
        engine().call(self._process.kill(signal))

    def stop(self, signal: Signal | int | str = 15, grace: float = 10.0) -> ExitStatus:
        """As `AsyncProcess.stop`."""
        return engine().call(self._process.stop(signal, grace))

    def resize(self, size: PtySize) -> None:
        """As `AsyncProcess.resize`."""
        engine().call(self._process.resize(size))


class Container:
    """A container in a VM of its own; a context manager. See `AsyncContainer`, whose calls these are.

    In the examples below `box` is a running container of busybox.

    >>> with firkin.Container.launch("busybox", ["sleep", "60"]) as one:
    ...     one.run(["echo", "hi"]).stdout
    b'hi\\n'
    """

    def __init__(self, container: AsyncContainer) -> None:
        self._container = container

    @classmethod
    def launch(
        cls,
        image: str,
        command: Sequence[str] = (),
        *,
        name: str | None = None,
        dirs: StateDirs | None = None,
        progress: AbstractContextManager[Progress] | None = None,
        **options: Unpack[OptionInputs],
    ) -> Self:
        """As `AsyncContainer.launch`."""
        from firkin.core.container import AsyncContainer

        launched = AsyncContainer.launch(image, command, name=name, dirs=dirs, progress=progress, **options)
        return cls(engine().call(launched))

    @classmethod
    def restore(
        cls,
        snapshot: str,
        *,
        name: str | None = None,
        hostname: str | None = None,
        stdin: Stdio = Stdio.NULL,
        stdout: Stdio = Stdio.NULL,
        stderr: Stdio = Stdio.NULL,
        dirs: StateDirs | None = None,
    ) -> Self:
        """As `AsyncContainer.restore`."""
        from firkin.core.container import AsyncContainer

        work = AsyncContainer.restore(
            snapshot, name=name, hostname=hostname, stdin=stdin, stdout=stdout, stderr=stderr, dirs=dirs
        )
        return cls(engine().call(work))

    def snapshot(self, name: str, *, stop: bool = False) -> SaveReport:
        """As `AsyncContainer.snapshot`."""
        return engine().call(self._container.snapshot(name, stop=stop))

    def fork(self, count: int = 1, *, names: Sequence[str] | None = None) -> list[Self]:
        """As `AsyncContainer.fork`."""
        return [type(self)(clone) for clone in engine().call(self._container.fork(count, names=names))]

    @property
    def id(self) -> str:
        """The container's name."""
        return self._container.id

    @property
    def process(self) -> Process:
        """Its first process."""
        return Process(self._container.process)

    @property
    def timings(self) -> Timings:
        """The phases of its start, in milliseconds."""
        return self._container.timings

    @property
    def paused(self) -> bool:
        """As `AsyncContainer.paused`."""
        return self._container.paused

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """As `AsyncContainer.wait`."""
        return engine().call(self._container.wait(timeout))

    def kill(self, signal: Signal | int | str = 9) -> None:
        """As `AsyncContainer.kill`."""
        engine().call(self._container.kill(signal))

    def stop(self, grace: float | None = None) -> ExitStatus:
        """As `AsyncContainer.stop`."""
        return engine().call(self._container.stop(grace))

    def exec(self, command: Sequence[str], **options: Unpack[ExecInputs]) -> Process:
        """As `AsyncContainer.exec`.

        >>> process = box.exec(["cat"], stdin=firkin.Stdio.PIPED, stdout=firkin.Stdio.PIPED)
        >>> process.stdin.write(b"in and out")
        >>> process.stdin.close()
        >>> process.stdout.read_all(), process.wait().code
        (b'in and out', 0)
        """
        return Process(engine().call(self._container.exec(command, **options)))

    def run(
        self,
        command: Sequence[str],
        *,
        input: bytes | str | None = None,
        text: bool = False,
        check: bool = False,
        timeout: float | None = None,
        capture_limit: int = CAPTURE_LIMIT,
        **options: Unpack[ExecInputs],
    ) -> CompletedProcess:
        """As `AsyncContainer.run`.

        >>> box.run(["sh", "-c", "echo $GREETING; id -u"], env={"GREETING": "hi"}, user=1000, text=True).stdout
        'hi\\n1000\\n'
        >>> box.run(["cat", "/nowhere"], check=True)
        Traceback (most recent call last):
        firkin.errors.ProcessFailedError: cat failed: exit code 1: cat: can't open '/nowhere': No such file or directory
        """
        return engine().call(
            self._container.run(
                command, input=input, text=text, check=check, timeout=timeout, capture_limit=capture_limit, **options
            )
        )

    def open_tty(
        self, command: Sequence[str], size: PtySize = DEFAULT_PTY_SIZE, **options: Unpack[ExecInputs]
    ) -> Process:
        """As `AsyncContainer.open_tty`.

        >>> terminal = box.open_tty(["stty", "size"], firkin.PtySize(100, 30))
        >>> terminal.stdin.read_all()
        b'30 100\\r\\n'
        """
        return Process(engine().call(self._container.open_tty(command, size, **options)))

    def stats(self) -> Stats:
        """As `AsyncContainer.stats`.

        >>> found = box.stats()
        >>> found.processes, found.memory.current < found.vm.memory_total
        (1, True)
        """
        return engine().call(self._container.stats())

    def update(
        self,
        *,
        pids_limit: int | None = None,
        cpus: float | None = None,
        memory: Size | int | str | None = None,
        memory_high: Size | int | str | None = None,
        read_bps: Size | int | str | None = None,
        write_bps: Size | int | str | None = None,
        read_iops: int | None = None,
        write_iops: int | None = None,
    ) -> None:
        """As `AsyncContainer.update`.

        >>> box.update(memory="64m", cpus=0.5)
        >>> box.stats().memory.limit == firkin.Size.mib(64)
        True
        """
        work = self._container.update(
            pids_limit=pids_limit,
            cpus=cpus,
            memory=memory,
            memory_high=memory_high,
            read_bps=read_bps,
            write_bps=write_bps,
            read_iops=read_iops,
            write_iops=write_iops,
        )
        engine().call(work)

    @property
    def ports(self) -> tuple[PortPublication, ...]:
        """As `AsyncContainer.ports`."""
        return self._container.ports

    def publish(self, port: PortPublication | str) -> tuple[PortPublication, ...]:
        """As `AsyncContainer.publish`."""
        return engine().call(self._container.publish(port))

    def unpublish(self, port: PortPublication | str) -> None:
        """As `AsyncContainer.unpublish`."""
        engine().call(self._container.unpublish(port))

    def set_network_policy(
        self, *, allow_net: Iterable[str] = (), deny_net: Iterable[str] = (), allow_domain: Iterable[str] = ()
    ) -> None:
        """As `AsyncContainer.set_network_policy`."""
        work = self._container.set_network_policy(allow_net=allow_net, deny_net=deny_net, allow_domain=allow_domain)
        engine().call(work)

    def put(self, source: HostSource, destination: str, **options: Unpack[PutOptions]) -> CopyReport:
        """As `AsyncContainer.put`."""
        return engine().call(self._container.put(source, destination, **options))

    def get(self, source: str, destination: HostTarget, **options: Unpack[GetOptions]) -> CopyReport:
        """As `AsyncContainer.get`."""
        return engine().call(self._container.get(source, destination, **options))

    def put_archive(
        self,
        archive: BinaryIO | int,
        directory: str,
        *,
        preserve_owner: bool = False,
        timeout: float | None = None,
    ) -> None:
        """As `AsyncContainer.put_archive`."""
        work = self._container.put_archive(archive, directory, preserve_owner=preserve_owner, timeout=timeout)
        engine().call(work)

    def get_archive(
        self, source: str, archive: BinaryIO | int, *, follow: bool = False, timeout: float | None = None
    ) -> None:
        """As `AsyncContainer.get_archive`."""
        engine().call(self._container.get_archive(source, archive, follow=follow, timeout=timeout))

    @property
    def sockets(self) -> tuple[SocketRelay, ...]:
        """As `AsyncContainer.sockets`."""
        return self._container.sockets

    def relay_socket(self, relay: SocketRelay) -> None:
        """As `AsyncContainer.relay_socket`."""
        engine().call(self._container.relay_socket(relay))

    def stop_socket(self, relay: SocketRelay) -> None:
        """As `AsyncContainer.stop_socket`."""
        engine().call(self._container.stop_socket(relay))

    def stat(self, path: str, *, follow: bool = False) -> FileStat:
        """As `AsyncContainer.stat`."""
        return engine().call(self._container.stat(path, follow=follow))

    def pause(self) -> None:
        """As `AsyncContainer.pause`.

        >>> box.pause()
        >>> box.run(["true"])
        Traceback (most recent call last):
        firkin.errors.StateError: container box is paused (firkin unpause box)
        >>> box.resume()
        """
        engine().call(self._container.pause())

    def resume(self) -> None:
        """As `AsyncContainer.resume`."""
        engine().call(self._container.resume())

    def close(self) -> None:
        """As `AsyncContainer.aclose`."""
        engine().call(self._container.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine().call(self._container.__aexit__(kind, error, trace))


def run(
    image: str,
    command: Sequence[str] = (),
    *,
    input: bytes | str | None = None,
    text: bool = False,
    check: bool = False,
    timeout: float | None = None,
    capture_limit: int = CAPTURE_LIMIT,
    name: str | None = None,
    dirs: StateDirs | None = None,
    **options: Unpack[OptionInputs],
) -> CompletedProcess:
    """As `run_async`: run `command` of `image` in a new VM to its end and give back what it wrote.

    >>> firkin.run("busybox", ["tr", "a-z", "A-Z"], input="hello", text=True).stdout
    'HELLO'
    >>> done = firkin.run("busybox", ["sh", "-c", "exit 3"])
    >>> done.returncode, str(done.status)
    (3, 'exit code 3')
    """
    from firkin.core.run import run_async

    return engine().call(
        run_async(
            image,
            command,
            input=input,
            text=text,
            check=check,
            timeout=timeout,
            capture_limit=capture_limit,
            name=name,
            dirs=dirs,
            **options,
        )
    )
