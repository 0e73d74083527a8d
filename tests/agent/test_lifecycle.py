"""Boot, resume, quiesce, reconnect, power off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from firkin.errors import AgentError, LinkError
from firkin.oci import Image, ImageStore
from firkin.vminitd import Agent, Call, Link
from firkin.vminitd._generated import agent_pb2 as pb
from tests.agent.guest import CONTAINER, Guest, booted, collect, read_all

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]


async def test_nothing_of_the_user_runs_before_resume(store: ImageStore, busybox_image: Image) -> None:
    async with booted(store, busybox_image, launch=False) as guest:
        info = await guest.call(pb.Info())
        assert info.kernel_release.startswith("6.")
        assert {"cgroup.freeze", "cgroup.kill", "overlay"} <= set(info.features)
        started = guest.start(["true"], process="init")
        with pytest.raises(AgentError) as caught:
            await started.created
        assert (caught.value.stage, caught.value.errno) == ("resume", 11)
        with pytest.raises(AgentError, match="32 to 4096"):
            await guest.call(pb.Resume(entropy=b"short", realtime_ns=time.time_ns()))
        message = guest.vm.resume_message(epoch=3, hostname="box")
        await guest.call(message)
        assert (await guest.call(pb.Info())).epoch == 3
        await guest.launch()
        assert (await guest.run("echo", "now")).stdout == b"now\n"


async def test_clock_and_slew(guest: Guest) -> None:
    now = time.time_ns()
    await guest.call(pb.SetTime(realtime_ns=now + 3600 * 10**9))
    found = (await guest.call(pb.Info())).realtime_ns - time.time_ns()
    assert abs(found - 3600 * 10**9) < 10 * 10**9
    await guest.call(pb.SetTime(realtime_ns=time.time_ns()))
    before = (await guest.call(pb.Info())).realtime_ns
    await guest.call(pb.SetTime(realtime_ns=before + 10**8, slew=True))
    assert (await guest.call(pb.Info())).realtime_ns > before
    with pytest.raises(AgentError, match="after 1970"):
        await guest.call(pb.SetTime(realtime_ns=0))


async def test_resume_publishes_epoch_and_machine_id(guest: Guest) -> None:
    message = guest.vm.resume_message(epoch=9)
    await guest.call(message)
    for name, content in (("epoch", "9\n"), ("machine-id", message.machine_id + "\n")):
        found = await guest.call(pb.Stat(path=f"/run/firkin/{name}"))
        assert found.size == len(content)


async def test_quiesce_locks_user_code_out_until_resume(guest: Guest) -> None:
    ticker = guest.start(["sh", "-c", "while :; do echo x; sleep 0.02; done"])
    stream = await ticker.listeners[1].accept()
    await stream.readexactly(20)
    await guest.call(pb.Quiesce())
    with pytest.raises(AgentError, match="not resumed"):
        await guest.start(["true"]).created
    await guest.call(guest.vm.resume_message(thaw=False))
    with pytest.raises(AgentError, match="without a thaw"):
        await guest.start(["true"]).created
    await guest.call(guest.vm.resume_message(thaw=True))
    await stream.readexactly(200)
    await guest.kill(ticker.id, 9)
    stream.close()
    assert (await ticker.exited).signal == 9


async def test_streams_detach_and_attach(guest: Guest) -> None:
    started = guest.start(["cat"], stdin=True)
    stdin, stdout = [await started.listeners[n].accept() for n in (0, 1)]
    await stdin.write(b"before\n")
    assert await stdout.readexactly(7) == b"before\n"
    # What it wrote may be here before the word that it runs.
    await started.created
    await guest.call(pb.Quiesce(detach_stdio=True))
    assert await read_all(stdout) == b""
    stdin.close()
    await guest.call(guest.vm.resume_message(thaw=True))
    listeners = [guest.vm.link.listen(guest.vm.link.allocate_port()) for _ in range(2)]
    attach = pb.AttachProcess(
        container=CONTAINER, process=started.id, stdin_port=listeners[0].port, stdout_port=listeners[1].port
    )
    await guest.call(attach)
    with pytest.raises(AgentError, match="has its streams"):
        await guest.call(attach)
    output = asyncio.create_task(collect(listeners[1]))
    async with await listeners[0].accept() as stream:
        await stream.write(b"after\n")
        await stream.end()
        await read_all(stream)
    assert await output == b"after\n"
    assert (await started.exited).code == 0


async def test_output_of_a_detached_process_waits_for_its_reader(guest: Guest) -> None:
    started = guest.start(["sh", "-c", "read line; echo $line"], stdin=True)
    stdin = await started.listeners[0].accept()
    await started.created
    await stdin.write(b"kept\n")
    await guest.call(pb.Quiesce(detach_stdio=True))
    await guest.call(guest.vm.resume_message(thaw=True))
    assert (await started.exited).code == 0
    listener = guest.vm.link.listen(guest.vm.link.allocate_port())
    await guest.call(pb.AttachProcess(container=CONTAINER, process=started.id, stdout_port=listener.port))
    assert await collect(listener) in (b"kept\n", b"")


async def test_a_second_hello_leaves_nothing_of_the_first(store: ImageStore, busybox_image: Image) -> None:
    # Of a boot: that listens.
    async with booted(store, busybox_image, fork=False) as guest:
        noisy = guest.start(["sh", "-c", "while :; do echo noise; done"])
        await noisy.created
        link = guest.vm.link
        for _ in range(5):
            sentinel, path = link.sentinel, guest.vm.folder.path / "agent.sock"
            await link.aclose()
            link = await _connect(path, sentinel)
            agent = Agent(link)
            assert (await agent.call(pb.Info(), 10)).agent_version
        with pytest.raises(LinkError):
            await noisy.exited
        await agent.call(pb.KillProcess(container=CONTAINER, process=noisy.id, signal=9), 10)
        exit = await agent.call(pb.WaitProcess(container=CONTAINER, process=noisy.id), 10)
        assert exit.signal == 9
        await link.aclose()


async def _connect(path: Path, sentinel: bytes) -> Link:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    return await Link.connect(sock, sentinel=sentinel)


async def test_power_off_ends_the_machine(store: ImageStore, busybox_image: Image) -> None:
    async with booted(store, busybox_image) as guest:
        off = guest.vm.agent.submit(pb.Poweroff(), timeout=20)
        await asyncio.wait_for(guest.vm.wait_closed(), 20)
        assert not guest.vm.running
        # Whether the answer still came through is not sure.
        await asyncio.wait([asyncio.ensure_future(_outcome(off))])


async def _outcome(call: Call[pb.Done]) -> None:
    with contextlib.suppress(LinkError):
        await call
