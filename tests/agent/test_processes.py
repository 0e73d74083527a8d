"""Processes of the agent: their ends, their streams, their terminals."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time

import pytest

from firkin.errors import AgentError, FirkinTimeoutError, LinkError
from firkin.vminitd._generated import agent_pb2 as pb
from tests.agent.guest import CONTAINER, LIMIT, Guest, collect, read_all

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]
MIB = 1 << 20


async def test_output_error_and_code(guest: Guest) -> None:
    before = time.time_ns()
    result = await guest.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit.code) == (b"out\n", b"err\n", 3)
    assert not result.exit.oom_killed
    assert abs(result.exit.exited_at_ns - before) < 60 * 10**9


async def test_a_signal_is_told_as_one(guest: Guest) -> None:
    result = await guest.run("sh", "-c", "kill -TERM $$")
    assert (result.exit.WhichOneof("status"), result.exit.signal) == ("signal", 15)


async def test_input_is_half_closed(guest: Guest) -> None:
    data = random.Random(1).randbytes(MIB)
    result = await guest.run("sh", "-c", "sha256sum; echo after", stdin=data)
    assert result.stdout.decode().split() == [hashlib.sha256(data).hexdigest(), "-", "after"]


async def test_bytes_both_ways_at_once(guest: Guest) -> None:
    data = random.Random(2).randbytes(4 * MIB)
    result = await guest.run("cat", stdin=data)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


async def test_a_process_that_reads_nothing_ends_its_input(guest: Guest) -> None:
    started = guest.start(["true"], stdin=True)
    stream = await started.listeners[0].accept()
    assert (await started.exited).code == 0
    with pytest.raises(LinkError, match="EPIPE"):
        await stream.write(bytes(8 * MIB))
    stream.close()


async def test_grandchildren_are_not_waited_for(guest: Guest) -> None:
    result = await guest.run("sh", "-c", "sleep 1000 & echo first; head -c 60000 /dev/zero")
    assert len(result.stdout) == len("first\n") + 60_000
    await guest.run("sh", "-c", "kill $(pidof sleep | tr ' ' '\\n' | grep -v '^1$')")


async def test_a_stalled_reader_stalls_only_itself(guest: Guest) -> None:
    stalled = guest.start(["sh", "-c", "head -c 1000000 /dev/zero; echo end"])
    stream = await stalled.listeners[1].accept()
    errors = asyncio.create_task(collect(stalled.listeners[2]))
    await stalled.created
    for _ in range(3):
        assert (await guest.run("echo", "other")).stdout == b"other\n"
    other = await guest.run("head", "-c", str(2 * MIB), "/dev/zero")
    assert len(other.stdout) == 2 * MIB
    assert not stalled.exited.done()
    assert (await read_all(stream))[-4:] == b"end\n"
    assert (await stalled.exited).code == 0
    assert await errors == b""


async def test_a_reader_that_leaves_breaks_the_pipe(guest: Guest) -> None:
    started = guest.start(["yes"])
    stream = await started.listeners[1].accept()
    assert (await stream.readexactly(2)) == b"y\n"
    stream.reset()
    assert (await asyncio.wait_for(started.exited, LIMIT)).signal == 13


async def test_a_terminal_has_a_size_that_changes(guest: Guest) -> None:
    script = "trap 'stty size; exit 7' WINCH; stty size; while :; do sleep 0.1; done"
    started = guest.start(["sh", "-c", script], pty=(100, 30))
    stream = await started.listeners[0].accept()
    await started.created
    assert await stream.readexactly(8) == b"30 100\r\n"
    await guest.call(pb.ResizeProcess(container=CONTAINER, process=started.id, columns=132, rows=43))
    assert await read_all(stream) == b"43 132\r\n"
    assert (await started.exited).code == 7


async def test_a_terminal_carries_both_ways_and_ends(guest: Guest) -> None:
    started = guest.start(["sh"], pty=(80, 24))
    stream = await started.listeners[0].accept()
    await stream.write(b"tty; head -c 100000 /dev/zero | tr '\\0' x; exit 5\n")
    output = await read_all(stream)
    assert b"/dev/pts/" in output
    assert output.count(b"x") >= 100_000
    assert (await started.exited).code == 5


async def test_made_first_started_later(guest: Guest) -> None:
    started = guest.start(["echo", "now"], start=False)
    output = asyncio.create_task(collect(started.listeners[1]))
    pid = (await started.created).pid
    assert pid > 1
    assert (await guest.run("true")).exit.code == 0
    assert not output.done()
    assert (await guest.call(pb.StartProcess(container=CONTAINER, process=started.id))).pid == pid
    assert await output == b"now\n"
    assert (await started.exited).code == 0
    with pytest.raises(AgentError, match="started before"):
        await guest.call(pb.StartProcess(container=CONTAINER, process=started.id))


async def test_made_and_killed_before_the_start(guest: Guest) -> None:
    # The agent hears of the end in two ways, of which either may come first.
    for _ in range(20):
        started = guest.start(["echo", "never"], start=False)
        await started.created
        await guest.kill(started.id, 9)
        assert (await started.exited).signal == 9


@pytest.mark.parametrize(("program", "errno"), [("/nowhere", 2), ("/etc", 21)])
async def test_what_cannot_be_started(guest: Guest, program: str, errno: int) -> None:
    started = guest.start([program])
    with pytest.raises(AgentError) as caught:
        await started.created
    assert (caught.value.errno, caught.value.stage) == (errno, "exec")
    with pytest.raises(AgentError):
        await started.exited
    with pytest.raises(AgentError, match="no process"):
        await guest.call(pb.DeleteProcess(container=CONTAINER, process=started.id))


async def test_waiting_is_cancelled_and_limited(guest: Guest) -> None:
    started = guest.start(["sleep", "1000"])
    await started.created
    with pytest.raises(FirkinTimeoutError):
        await guest.call(pb.WaitProcess(container=CONTAINER, process=started.id), 0.2)
    waiter = asyncio.ensure_future(guest.call(pb.WaitProcess(container=CONTAINER, process=started.id)))
    await guest.run("true")
    waiter.cancel()
    await guest.kill(started.id, 15)
    assert (await started.exited).signal == 15


async def test_a_running_process_is_not_deleted(guest: Guest) -> None:
    started = guest.start(["sleep", "1000"])
    await started.created
    with pytest.raises(AgentError, match="runs"):
        await guest.call(pb.DeleteProcess(container=CONTAINER, process=started.id))
    await guest.kill(started.id, 9)
    assert (await started.exited).signal == 9
    await guest.call(pb.DeleteProcess(container=CONTAINER, process=started.id))
    with pytest.raises(AgentError, match="no process"):
        await guest.kill(started.id, 9)


async def test_input_is_closed_by_a_call(guest: Guest) -> None:
    started = guest.start(["cat"], stdin=True)
    stream = await started.listeners[0].accept()
    await stream.write(b"last words")
    await started.created
    await guest.call(pb.CloseStdin(container=CONTAINER, process=started.id))
    assert await collect(started.listeners[1]) == b"last words"
    assert (await started.exited).code == 0


async def test_many_at_once(guest: Guest) -> None:
    results = await asyncio.gather(*(guest.run("sh", "-c", f"echo {n}; exit {n}") for n in range(12)))
    assert [(result.stdout, result.exit.code) for result in results] == [(b"%d\n" % n, n) for n in range(12)]


async def test_ids_are_checked(guest: Guest) -> None:
    for process in ("", "..", "a/b", "x" * 65):
        with pytest.raises(AgentError, match="is no id"):
            await guest.call(pb.CreateProcess(container=CONTAINER, process=process, spec_json=b"{}"))
    with pytest.raises(AgentError, match="exists"):
        await guest.call(pb.CreateProcess(container=CONTAINER, process="init", spec_json=b"{}"))
    with pytest.raises(AgentError, match="does not run"):
        await guest.call(pb.CreateProcess(container="other", process="x", spec_json=b"{}"))


async def test_statistics_and_limits(guest: Guest) -> None:
    limits = {"memory.max": str(200 * MIB), "pids.max": "77"}
    await guest.call(pb.UpdateResources(container=CONTAINER, cgroup=limits))
    found = await guest.call(pb.Statistics(container=CONTAINER))
    assert found.cgroup["pids.max"] == "77\n"
    assert found.cgroup["memory.max"] == f"{200 * MIB}\n"
    assert "usage_usec" in found.cgroup["cpu.stat"]
    assert 1 <= len(found.pids) <= int(found.cgroup["pids.current"])
    machine = await guest.call(pb.Statistics())
    assert "MemTotal" in machine.proc["meminfo"]
    with pytest.raises(AgentError, match="is no limit"):
        await guest.call(pb.UpdateResources(container=CONTAINER, cgroup={"cgroup.procs": "1"}))


async def test_memory_kills_are_told_from_others(guest: Guest) -> None:
    await guest.call(pb.UpdateResources(container=CONTAINER, cgroup={"memory.max": str(24 * MIB)}))
    hog = await guest.run("sh", "-c", "exec tail /dev/zero")
    assert (hog.exit.signal, hog.exit.oom_killed) == (9, True)
    await guest.call(pb.UpdateResources(container=CONTAINER, cgroup={"memory.max": "max"}))
    other = await guest.run("sh", "-c", "kill -9 $$")
    assert (other.exit.signal, other.exit.oom_killed) == (9, False)


async def test_frozen_and_thawed(guest: Guest) -> None:
    started = guest.start(["sh", "-c", "while :; do echo x; sleep 0.05; done"])
    stream = await started.listeners[1].accept()
    await stream.readexactly(2)
    await guest.call(pb.Freeze(container=CONTAINER))
    frozen = (await guest.call(pb.Statistics(container=CONTAINER))).cgroup["cgroup.events"]
    assert "frozen 1" in frozen
    await guest.call(pb.Thaw(container=CONTAINER))
    await stream.readexactly(8)
    await guest.kill(started.id, 9)
    stream.close()
    assert (await started.exited).signal == 9


async def test_all_of_a_container_dies_and_it_can_come_again(guest: Guest) -> None:
    running = guest.start(["sleep", "1000"])
    await running.created
    await guest.kill("init", 9, all=True)
    assert (await running.exited).signal == 9
    assert (await guest.call(pb.WaitProcess(container=CONTAINER, process="init"))).signal == 9
    await guest.call(pb.DeleteProcess(container=CONTAINER, process="init"))
    with pytest.raises(AgentError, match="no container"):
        await guest.call(pb.Statistics(container=CONTAINER))
    await guest.launch()
    assert (await guest.run("echo", "again")).stdout == b"again\n"
