"""Calls: order, errors, deadlines, cancellation, silence."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any

import pytest

from firkin.errors import AgentError, FirkinTimeoutError, InvalidInputError, LinkError, StreamResetError
from firkin.vminitd import rpc
from firkin.vminitd._generated import agent_pb2 as pb
from firkin.vminitd.agent import Agent, printable
from firkin.vminitd.framing import Framing
from firkin.vminitd.link import ANY_SCHEMA, INITIAL_SENTINEL, RPC_PORT, Link
from firkin.vminitd.liveness import Liveness
from firkin.vminitd.testing import linked
from firkin.vminitd.wire import HEADER, MAGIC, PONG


async def forever(_: Any) -> None:
    """A call that is never answered."""
    await asyncio.get_running_loop().create_future()


async def test_typed_calls_give_typed_answers() -> None:
    async def stat(call: pb.Stat) -> pb.StatReply:
        return pb.StatReply(size=len(call.path), mode=0o100644)

    async with linked({"stat": stat}) as (agent, _):
        assert (await agent.stat("/etc/passwd")).size == 11
        assert isinstance(await agent.mkdir("/x"), pb.Done)
        assert (await agent.call(pb.Stat(path="/"))).size == 1


async def test_every_call_of_the_proto_has_a_method_with_its_fields() -> None:
    async with linked() as (agent, fake):
        for field in pb.Request.DESCRIPTOR.oneofs_by_name["call"].fields:
            method = getattr(agent, field.name)
            names = {name for name in method.__annotations__ if name not in ("timeout", "return")}
            assert field.message_type is not None
            assert names == {inner.name for inner in field.message_type.fields}, field.name
        await agent.sync()
        assert fake.calls == ["sync"]


async def test_calls_sent_in_one_go_begin_in_their_order_also_when_one_is_large() -> None:
    async with linked() as (agent, fake):
        answers = [
            agent.resume(bytes(32), 1),
            agent.write_file("/big", bytes(900_000)),
            agent.mount("ext4", "serial:disk0", "/mnt"),
            agent.create_process("c", "init", bytes(200_000), start=True),
            agent.submit(pb.WaitProcess(container="c", process="init")),
        ]
        assert agent._caller.pending == 4
        for answer in answers:
            await answer
        assert fake.calls == ["resume", "write_file", "mount", "create_process", "wait_process"]
        assert agent._caller.pending == 0


async def test_an_error_has_stage_and_errno_and_is_one_safe_line() -> None:
    async def mount(_: Any) -> None:
        raise AgentError("bad\n\x1b[31msuper block", stage="mount", errno=22)

    async with linked({"mount": mount}) as (agent, _):
        with pytest.raises(AgentError) as caught:
            await agent.mount("ext4", "/dev/vda", "/mnt")
        assert (caught.value.stage, caught.value.errno) == ("mount", 22)
        assert str(caught.value) == "mount: bad\\n\\x1b[31msuper block: Invalid argument"
        assert not caught.value.outcome_unknown


async def test_a_deadline_is_told_to_the_agent_and_kept_here() -> None:
    async with linked({"wait_process": forever}) as (agent, fake):
        with pytest.raises(FirkinTimeoutError, match="its outcome is unknown"):
            await agent.wait_process("c", "init", timeout=0.05)
        await agent.sync()
        assert fake.link._framing.streams == 0
        assert agent.link._framing.streams == 0


async def test_cancelling_a_call_leaves_nothing_on_either_side() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def wait(_: Any) -> None:
        began.set()
        try:
            await forever(_)
        finally:
            ended.set()

    async with linked({"wait_process": wait}) as (agent, fake):
        task = asyncio.create_task(agent.call(pb.WaitProcess(container="c", process="init")))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert agent.link._framing.streams == 0
        assert agent.link._handlers == {}
        await ended.wait()
        assert fake.link._framing.streams == 0


async def test_cancelling_a_half_sent_call_lets_the_next_ones_go() -> None:
    async with linked() as (agent, fake):
        large = agent.write_file("/big", bytes(900_000))
        small = agent.sync()
        large.cancel()
        await small
        assert fake.calls == ["sync"]


async def test_the_end_of_the_link_fails_every_call_at_once() -> None:
    async with linked({"wait_process": forever}) as (agent, fake):
        calls = [agent.wait_process("c", str(number)) for number in range(20)]
        late = [agent.write_file("/big", bytes(900_000)), agent.sync()]
        await asyncio.sleep(0)
        await fake.link.aclose()
        errors = await asyncio.gather(*calls, *late, return_exceptions=True)
        assert all(isinstance(error, LinkError) for error in errors)
        assert all(error.outcome_unknown for error in errors[:20] if isinstance(error, LinkError))
        assert len({id(error) for error in errors}) == len(errors)
        with pytest.raises(LinkError) as caught:
            await agent.sync()
        assert not caught.value.outcome_unknown


async def test_a_call_that_never_began_says_so() -> None:
    near, far = socket.socketpair()
    accepting = asyncio.create_task(Link.accept(far))
    agent = Agent(await Link.connect(near, schema=ANY_SCHEMA))
    guest = await accepting
    with pytest.raises(StreamResetError) as caught:
        await agent.sync()
    assert caught.value.errno == 111
    assert not caught.value.outcome_unknown
    await agent.link.aclose()
    await guest.aclose()


async def test_a_request_above_the_limit_is_not_sent() -> None:
    async with linked() as (agent, fake):
        with pytest.raises(InvalidInputError, match="at most 1048576"):
            agent.write_file("/x", bytes(1 << 20))
        await agent.sync()
        assert fake.calls == ["sync"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"\xff\xff\xff\xff", "malformed answer"),
        (b"\x01\0\0\0\x08", "malformed answer"),
        (b"\x02\0\0\0\x08", "cut short"),
        (b"", "cut short"),
        (b"\x01\0\0\0ab", "malformed answer"),
        (b"\0\0\0\0", "something else"),
        (b"\x04\0\0\0" + pb.Reply(copy=pb.CopyReply(bytes=1)).SerializeToString(), "something else"),
    ],
)
async def test_a_malformed_answer_fails_only_its_call(answer: bytes, error: str) -> None:
    near, far = socket.socketpair()
    accepting = asyncio.create_task(Link.accept(far))
    agent = Agent(await Link.connect(near, schema=ANY_SCHEMA))
    guest = await accepting
    async with guest.listen(RPC_PORT) as listener:
        call = agent.sync()
        async with await listener.accept() as stream:
            await stream.write(answer)
        with pytest.raises(LinkError, match=error) as caught:
            await call
        assert caught.value.outcome_unknown
        assert agent.link.error is None
    await agent.link.aclose()
    await guest.aclose()


async def test_a_guest_that_hangs_is_given_up_only_while_somebody_waits_and_it_runs() -> None:
    near, far = socket.socketpair()
    accepting = asyncio.create_task(Link.accept(far))
    agent = Agent(await Link.connect(near, schema=ANY_SCHEMA, ping_limit=0.2))
    guest = await accepting
    guest.loop.remove_reader(far)
    assert agent.link._timer is None
    agent.link.paused = True
    call = agent.sync()
    assert agent.link._timer is None
    agent.link.paused = False
    with pytest.raises(LinkError, match=r"has not answered for 0.2 s") as caught:
        await call
    assert caught.value.outcome_unknown
    await guest.aclose()


async def test_a_guest_that_answers_pings_may_take_its_time() -> None:
    near, far = socket.socketpair()
    far.setblocking(False)
    loop = asyncio.get_running_loop()
    guest = Framing.guest(INITIAL_SENTINEL)
    link = Link.begin(near, schema=ANY_SCHEMA, ping_limit=0.2)
    call = Agent(link).sync()
    pings = 0
    # Eight pings are 0.4 s, twice the limit.
    while pings < 8:
        guest.feed(await loop.sock_recv(far, 65536))
        output = guest.take()
        pings += output.count(HEADER.pack(MAGIC, PONG, 0, 0, 8, 0)[:12])
        await loop.sock_sendall(far, output)
    assert link.error is None
    assert not call.done()
    call.cancel()
    await link.aclose()
    far.close()


def test_silence_of_a_stopped_host_is_not_the_guests() -> None:
    liveness = Liveness(10.0)
    liveness.start(100.0)
    assert liveness.tick(102.5) == "ping"
    assert liveness.tick(300.0) == "ping"
    assert liveness.tick(302.5) == "ping"
    liveness.heard(303.0)
    assert liveness.tick(305.0) == "alive"
    assert [liveness.tick(305.0 + 2.5 * n) for n in range(1, 5)] == ["ping", "ping", "ping", "dead"]


def test_text_of_the_guest_is_bounded() -> None:
    assert len(printable("x" * 10_000)) == 401
    assert printable("é\t") == "é\\t"


def test_a_message_limit_is_the_protocols() -> None:
    assert rpc.MAX_MESSAGE == 1_048_576


def test_importing_the_link_does_not_import_protobuf() -> None:
    code = "import sys, firkin.vminitd; print('google.protobuf' in sys.modules, 'hashlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
