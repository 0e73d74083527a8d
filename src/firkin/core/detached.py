"""The life of a detached container: its owner logs what it writes, and stops it when asked to end."""

from __future__ import annotations

import asyncio
import signal as signals
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from firkin.core.container import AsyncContainer
from firkin.core.log_file import LogWriter
from firkin.errors import LinkError
from firkin.types import Stdio

if TYPE_CHECKING:
    from firkin.oci.registry.progress import Progress
    from firkin.vminitd.stream import Stream

__all__ = ["keep"]

_STDOUT, _STDERR = 1, 2
# For what is still in the pipes when the first process has ended: others may hold them for ever.
_LAST_LIMIT = 2.0


async def keep(
    image: str,
    args: Sequence[str],
    *,
    name: str | None,
    progress: AbstractContextManager[Progress] | None,
    inputs: dict[str, Any],
    started: Callable[[str], None],
) -> None:
    """Start a container, call `started` with its name, and keep it until its first process has ended.

    SIGTERM stops it (its stop signal, then SIGKILL). Raises as `AsyncContainer.launch`, before `started`.
    """
    given = inputs.pop("stdin", Stdio.NULL)
    inputs |= {"stdin": Stdio.NULL if given is Stdio.NULL else Stdio.PIPED}
    inputs |= {"stdout": Stdio.PIPED, "stderr": Stdio.PIPED}
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    assert main is not None
    loop.add_signal_handler(signals.SIGTERM, main.cancel)
    async with await AsyncContainer.launch(image, args, name=name, progress=progress, **inputs) as container:
        log = LogWriter(container.vm.folder.path)
        streams = container.process.streams
        if container.options.terminal:
            streams = {"stdout": streams["stdin"]} if "stdin" in streams else {}
        records = [
            asyncio.create_task(_record(streams[name], number, log))
            for name, number in (("stdout", _STDOUT), ("stderr", _STDERR))
            if name in streams
        ]
        stopping: set[asyncio.Task[Any]] = set()
        loop.add_signal_handler(signals.SIGTERM, lambda: stopping.add(loop.create_task(container.stop())))
        started(container.id)
        try:
            await container.wait()
            if records:
                await asyncio.wait(records, timeout=_LAST_LIMIT)
        finally:
            for task in (*records, *stopping):
                task.cancel()
            log.close()


async def _record(stream: Stream, number: int, log: LogWriter) -> None:
    with suppress(LinkError):
        while data := await stream.read():
            log.write(number, data)
