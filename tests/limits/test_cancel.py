"""Giving up a call leaves nothing of it; what ends under calls ends them all, at once and with the reason."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from firkin.core.container import AsyncContainer
from firkin.errors import FirkinError, LinkError, VirtualMachineError
from firkin.oci import Image
from firkin.types import Stdio

pytestmark = pytest.mark.vm
LIMIT = 60.0
# Before the call was sent, while it is under way, and about when it is answered.
DELAYS = (0.0, 0.002, 0.02, 0.1)


@pytest.fixture
async def box(busybox_image: Image) -> AsyncIterator[AsyncContainer]:
    async with await AsyncContainer.launch("busybox", ["sleep", "600"], use_init=True) as container:
        yield container


async def wait_and_type(box: AsyncContainer) -> None:
    async with await box.listen_vsock(7777) as listener:
        await listener.accept()


CALLS: dict[str, Callable[[AsyncContainer], Awaitable[Any]]] = {
    "wait": lambda box: box.wait(),
    "exec": lambda box: box.exec(["sleep", "300"], stdin=Stdio.PIPED, stdout=Stdio.PIPED),
    "run": lambda box: box.run(["sleep", "300"]),
    "run with input": lambda box: box.run(["cat"], input=bytes(1 << 20)),
    "open_tty": lambda box: box.open_tty(["sleep", "300"]),
    "stats": lambda box: box.stats(),
    "update": lambda box: box.update(pids_limit=200),
    "kill": lambda box: box.kill("WINCH"),
    "dial": lambda box: box.dial_vsock(7778),
    "listen": wait_and_type,
}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT):
        while not await holds():  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.05)


async def test_a_call_that_is_given_up_leaves_nothing(box: AsyncContainer) -> None:
    await box.run(["true"])
    tasks, open_files, processes = len(asyncio.all_tasks()), descriptors(), (await box.stats()).processes
    for call in CALLS.values():
        for delay in DELAYS:
            task = asyncio.ensure_future(call(box))
            await asyncio.sleep(delay)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert not isinstance(result, FirkinError), result
            # What was done before it could be given up is the caller's.
            for process in box.processes[1:]:
                await process.kill()
                await process.wait()
                await box.forget(process)

    async def as_before() -> bool:
        return (await box.stats()).processes == processes

    await until(as_before)
    assert len(asyncio.all_tasks()) == tasks
    assert descriptors() == open_files
    assert (await box.run(["echo", "still there"])).stdout == b"still there\n"


async def test_a_run_that_is_given_up_kills_its_process(box: AsyncContainer) -> None:
    before = (await box.stats()).processes

    async def started() -> bool:
        return (await box.stats()).processes > before

    async def gone() -> bool:
        return (await box.stats()).processes == before

    task = asyncio.create_task(box.run(["sleep", "300"]))
    await until(started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(gone)


async def test_a_start_that_is_given_up_leaves_nothing(busybox_image: Image) -> None:
    tasks, open_files = len(asyncio.all_tasks()), descriptors()
    for delay in (0.0, 0.03, 0.1, 0.2, 0.4):
        task = asyncio.create_task(AsyncContainer.launch("busybox", ["sleep", "600"]))
        await asyncio.sleep(delay)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, AsyncContainer):
            await result.aclose()
        else:
            assert isinstance(result, asyncio.CancelledError), result
    assert len(asyncio.all_tasks()) == tasks
    assert descriptors() <= open_files + 2  # The spawning thread's own, made at the first use.


async def test_stopping_a_vm_ends_every_call_at_once_and_says_why(busybox_image: Image) -> None:
    container = await AsyncContainer.launch("busybox", ["sleep", "600"])
    pending = [asyncio.ensure_future(CALLS[name](container)) for name in ("run", "listen", "wait")]
    await container.run(["true"])
    async with asyncio.timeout(10):
        await container.vm.aclose()
        results = await asyncio.gather(*pending, return_exceptions=True)
    for result in results:
        assert isinstance(result, FirkinError), result
        assert f"the VM {container.id} was stopped" in str(result)
    await container.aclose()


async def test_a_process_that_nobody_waits_for_ends_without_a_word(busybox_image: Image) -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with await AsyncContainer.launch("busybox", ["sleep", "600"]) as container:
        await container.exec(["sleep", "300"], stdin=Stdio.PIPED, stdout=Stdio.INHERIT, stderr=Stdio.INHERIT)
        await container.vm.aclose()
    del container
    gc.collect()
    await asyncio.sleep(0)
    assert said == []


@pytest.mark.parametrize("how", ["agent hangs", "QEMU is stopped", "QEMU is killed"])
async def test_a_vm_that_does_not_answer_is_noticed_by_its_owner(busybox_image: Image, how: str) -> None:
    options: dict[str, Any] = {"cmdline_extra": ["firkin.test=1"], "fork": False} if how == "agent hangs" else {}
    async with await AsyncContainer.launch("busybox", ["sleep", "600"], **options) as container:
        running = asyncio.create_task(container.run(["sleep", "300"]))
        await container.run(["true"])
        if how == "agent hangs":
            container.vm.agent.write_file("/.firkin-test/hang", b"", create_parents=True)
        else:
            number = signal.SIGSTOP if how == "QEMU is stopped" else signal.SIGKILL
            os.kill(container.vm.pid, number)
        said = "QEMU was killed by SIGKILL" if how == "QEMU is killed" else "has not answered for 10 s"
        # Nobody asks: whoever waits learns of it.
        async with asyncio.timeout(LIMIT):
            with pytest.raises((LinkError, VirtualMachineError), match=said):
                await container.wait()
            with pytest.raises((LinkError, VirtualMachineError)):
                await running
