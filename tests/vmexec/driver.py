"""Plays the agent: starts vmexec as docs/internals.md says and reads what it tells.

Standard library only: the conformance test also runs it inside a VM, with the Python of its Debian image.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A hang is a failure that says so: longer than any set-up takes, shorter than pytest's own limit.
LIMIT_SECONDS = 60


@dataclass
class Process:
    """A process of a container, or why there is none."""

    pid: int | None = None
    terminal: int | None = None
    error: dict[str, Any] | None = None

    def wait(self) -> int:
        """Its exit code; 128+n for signal n."""
        assert self.pid is not None, self.error
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, 9)
            self.wait()


class Vmexec:
    """One binary of vmexec."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary

    def run(self, spec: Mapping[str, Any], **arguments: Any) -> Process:
        """`vmexec run` with a `config.json`."""
        return self.start(["run", "--id", "test"], spec, **arguments)

    def exec(self, init: Process, spec: Mapping[str, Any], **arguments: Any) -> Process:
        """`vmexec exec` in the container of `init`."""
        return self.start(["exec", "--id", "test", "--pid", str(init.pid)], spec, **arguments)

    def start(
        self,
        words: list[str],
        spec: Mapping[str, Any] | bytes,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
        pty: str | None = None,
        go: bytes = b"S",
    ) -> Process:
        """Start it and answer `go` when it is ready; returns when the program runs, or does not."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = os.pipe()
        command = [str(self.binary), *words, "--spec-fd", str(reader), "--sync-fd", str(theirs.fileno())]
        command += ["--pty", pty] if pty else []
        with ours:
            with theirs:
                helper = subprocess.Popen(
                    command, pass_fds=(reader, theirs.fileno()), stdin=stdin, stdout=stdout, stderr=stderr
                )
            os.close(reader)
            content = spec if isinstance(spec, bytes) else json.dumps(spec).encode()
            with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as file:
                file.write(content)
            ours.settimeout(LIMIT_SECONDS)
            process = _follow(ours, go)
        helper.wait(LIMIT_SECONDS)
        if process.error and process.pid is not None:
            process.wait()
        return process


def _follow(ours: socket.socket, go: bytes) -> Process:
    process = Process()
    while True:
        message, control, _, _ = ours.recvmsg(65536, socket.CMSG_SPACE(16))
        match message[:1]:
            case b"":
                return process
            case b"P":
                (process.pid,) = struct.unpack("<I", message[1:])
            case b"T":
                fds = array.array("i")
                fds.frombytes(control[0][2])
                process.terminal = fds[0]
            case b"R" if go:
                ours.send(go)
            case b"R":
                return process
            case b"E":
                process.error = json.loads(message[1:])
            case _:
                raise AssertionError(f"vmexec sent {message!r}")


@dataclass
class Finished:
    """A process that ran to its end, with what it wrote to standard output and error."""

    code: int
    output: str


def finish(start: Callable[..., Process], *words: Any, **arguments: Any) -> Finished:
    """Run `start` (`Vmexec.run` or `.exec` with its first arguments) with its output in a pipe, to the end."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        try:
            process = start(*words, stdout=writer, stderr=writer, **arguments)
        finally:
            os.close(writer)
        output = pipe.read().decode()
    assert process.error is None, process.error
    return Finished(process.wait(), output)
