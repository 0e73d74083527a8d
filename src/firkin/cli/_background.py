"""An owner in the background: forked off before there is a thread or a loop, in a session of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

from firkin.errors import FirkinError

__all__ = ["in_background"]

_STARTED, _FAILED = b"+", b"-"
_MOST = 1 << 16


def in_background(serve: Callable[[Callable[[str], None]], Coroutine[Any, Any, None]]) -> str:
    """Run `serve` in a process that outlives this one; what it calls its argument with, once that has happened.

    What it writes to standard error until then is seen. Raises its error. An interrupt ends it, too.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(serve, writer)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as answer:
            said = answer.read(_MOST)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    if said.startswith(_STARTED):
        return said[1:].decode()
    if said.startswith(_FAILED):
        from firkin.vminitd._generated import control_pb2 as pb
        from firkin.vminitd.control_errors import decode_error

        raise decode_error(pb.Error.FromString(said[1:]))
    raise FirkinError("the container's owner ended before it was started", hint="run it without --detach to see why")


def _child(serve: Callable[[Callable[[str], None]], Coroutine[Any, Any, None]], writer: int) -> NoReturn:
    # Whatever happens, nothing of what the parent was about to do is done here.
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        # A pipe of the caller's that stays open would look as if its writer still ran.
        keep = os.dup2(writer, os.dup(writer), inheritable=False)
        for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
            if number > 2 and number not in (keep, nothing):
                _close(number)

        def started(name: str) -> None:
            os.write(keep, _STARTED + name.encode())
            os.close(keep)
            os.chdir("/")
            os.dup2(nothing, 2)

        try:
            asyncio.run(serve(started))
        except FirkinError as error:
            from firkin.vminitd.control_errors import encode_error

            os.write(keep, _FAILED + encode_error(error).SerializeToString())
            os._exit(1)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - it must not unwind into the parent's code
        traceback.print_exc()
        os._exit(1)


def _close(number: int) -> None:
    try:
        os.close(number)
    except OSError:
        # That of the listing itself.
        return
