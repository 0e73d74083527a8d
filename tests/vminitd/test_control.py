"""The control socket: calls of another process, errors by name, stdio, cancellation, a kill in between."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from firkin import errors
from firkin.errors import AgentError, FirkinTimeoutError, InvalidInputError, LinkError, NotFoundError, StateError
from firkin.vminitd._generated import control_pb2 as pb
from firkin.vminitd.control import SOCKET_NAME, ControlClient, ControlServer
from firkin.vminitd.control_errors import decode_error, encode_error
from firkin.vminitd.link import Link


async def test_a_call_is_answered_by_its_handler(tmp_path: Path) -> None:
    async def inspect(_: pb.Inspect, link: Link) -> pb.Document:
        return pb.Document(json='{"pid": 7}')

    async def signal(call: pb.Signal, link: Link) -> None:
        assert call.signal == 15

    async with ControlServer(tmp_path, {"inspect": inspect, "signal": signal}):
        assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
        async with await ControlClient.connect(tmp_path) as client:
            assert (await client.call(pb.Inspect())).json == '{"pid": 7}'
            assert isinstance(await client.call(pb.Signal(process="init", signal=15)), pb.Done)
            with pytest.raises(StateError, match="does not answer stats"):
                await client.call(pb.Stats())
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_stdio_goes_over_streams_that_the_owner_opens(tmp_path: Path) -> None:
    async def exec_(call: pb.Exec, link: Link) -> pb.Started:
        async with await link.open(call.stdout_port) as stdout:
            await stdout.write(b"x" * 300_000)
        return pb.Started(process="exec-1", pid=42)

    async with ControlServer(tmp_path, {"exec": exec_}), await ControlClient.connect(tmp_path) as client:
        port = client.link.allocate_port()
        async with client.link.listen(port) as listener:
            started = client.submit(pb.Exec(config_json="{}", stdout_port=port))
            stream = await listener.accept()
            size = 0
            while data := await stream.read():
                size += len(data)
            assert size == 300_000
            assert (await started).pid == 42


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("no container x", hint="see firkin ps"),
        AgentError("mount: no", stage="mount", errno=2),
        InvalidInputError("bad", value=3),
        LinkError("gone", outcome_unknown=True),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_arrives_as_what_it_was(error: errors.FirkinError, tmp_path: Path) -> None:
    async def stop(_: Any, link: Link) -> None:
        raise error

    async with ControlServer(tmp_path, {"stop": stop}), await ControlClient.connect(tmp_path) as client:
        with pytest.raises(type(error)) as caught:
            await client.call(pb.Stop())
        assert str(caught.value) == str(error)
        assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)


def test_every_error_class_survives_the_socket() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        decoded = decode_error(pb.Error(kind=name, message="m", hint="h", errno=5))
        assert isinstance(decoded, kind) or name == "ProcessFailedError"
        assert encode_error(decoded).message == "m"
    assert type(decode_error(pb.Error(kind="SystemExit", message="no"))) is errors.FirkinError


async def test_a_bug_in_a_handler_is_answered_and_the_owner_lives_on(tmp_path: Path) -> None:
    async def stats(_: Any, link: Link) -> None:
        raise ZeroDivisionError

    async with ControlServer(tmp_path, {"stats": stats}), await ControlClient.connect(tmp_path) as client:
        for _ in range(2):
            with pytest.raises(errors.FirkinError, match=r"internal error: ZeroDivisionError\(\)"):
                await client.call(pb.Stats())


async def test_a_caller_that_gives_up_or_goes_away_cancels_its_handler(tmp_path: Path) -> None:
    began: asyncio.Queue[None] = asyncio.Queue()
    ended: asyncio.Queue[None] = asyncio.Queue()

    async def wait(_: Any, link: Link) -> None:
        began.put_nowait(None)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.put_nowait(None)

    async with ControlServer(tmp_path, {"wait": wait}):
        async with await ControlClient.connect(tmp_path) as client:
            call = client.submit(pb.Wait(process="init"))
            await began.get()
            call.cancel()
            await ended.get()
            with pytest.raises(FirkinTimeoutError):
                await client.call(pb.Wait(process="init"), timeout=0.05)
            await began.get()
            await ended.get()
            client.submit(pb.Wait(process="init"))
            await began.get()
        await ended.get()


async def test_the_end_of_the_owner_ends_pending_calls(tmp_path: Path) -> None:
    began = asyncio.Event()

    async def wait(_: Any, link: Link) -> None:
        began.set()
        await asyncio.get_running_loop().create_future()

    async with ControlServer(tmp_path, {"wait": wait}):
        client = await ControlClient.connect(tmp_path)
        call = client.submit(pb.Wait(process="init"))
        await began.wait()
    with pytest.raises(LinkError) as caught:
        await call
    assert caught.value.outcome_unknown
    await client.aclose()


async def test_no_owner_is_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="does not answer: No such file"):
        await ControlClient.connect(tmp_path)


async def test_a_folder_with_a_long_path_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40) / ("name" * 40)
    folder.mkdir(parents=True)
    async with ControlServer(folder, {}), await ControlClient.connect(folder) as client:
        assert client.link.peer is not None


async def test_an_owner_killed_after_the_bind_leaves_a_socket_that_the_next_owner_replaces(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from firkin.vminitd.control import ControlServer\n"
        "async def main():\n"
        "    async with ControlServer(Path(sys.argv[1]), {}): print('not reached')\n"
        "asyncio.run(main())"
    )
    environment = {**os.environ, "FIRKIN_FAULT": "control.bound=kill"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    killed = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.PIPE)
    assert await killed.communicate() == (b"", None)
    assert killed.returncode == -9
    with pytest.raises(StateError, match="does not answer: Connection refused"):
        await ControlClient.connect(tmp_path)
    async with ControlServer(tmp_path, {}), await ControlClient.connect(tmp_path) as client:
        assert client.link.error is None


async def test_a_hundred_clients_at_once(tmp_path: Path) -> None:
    async def inspect(_: Any, link: Link) -> pb.Document:
        return pb.Document(json="{}")

    async def one() -> str:
        async with await ControlClient.connect(tmp_path) as client:
            return str((await client.call(pb.Inspect())).json)

    async with ControlServer(tmp_path, {"inspect": inspect}):
        assert await asyncio.gather(*(one() for _ in range(100))) == ["{}"] * 100
