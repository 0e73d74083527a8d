"""Names: only what is allowed is answered, and an answer opens its addresses, for its time, to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from firkin.network.plan import INSIDE
from tests.network.guest import Guest, guest
from tests.network.world import World

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

GATEWAY = INSIDE[4].gateway_text
CLOSED = "EHOSTUNREACH"
REFUSED = (CLOSED, "EACCES")  # the second is IPv6's


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(world: World) -> AsyncIterator[Guest]:
    async with guest(allow_domain=["Allowed.Example", "*.wild.example"], hostname="inside") as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def cut(box: Guest) -> AsyncIterator[None]:
    yield
    await box.container.set_network_policy(deny_net=["all"])
    await box.container.set_network_policy(allow_domain=["Allowed.Example", "*.wild.example"])


async def test_an_answer_opens_its_addresses_alone(box: Guest, world: World) -> None:
    world.names(
        allowed_example=[("allowed.example", "A", 60, "1.2.3.4"), ("allowed.example", "AAAA", 60, "2600:9::1")],
        other_example=[("other.example", "A", 60, "1.2.3.5")],
    )
    assert await box.tcp("1.2.3.4") == CLOSED
    assert await box.name("allowed.example") == ["1.2.3.4", "2600:9::1"]
    assert "outside" in await box.tcp("1.2.3.4")
    assert "outside" in await box.tcp("2600:9::1")
    assert await box.udp("1.2.3.4") == "hello"
    assert await box.tcp("1.2.3.5") == CLOSED
    world.seen()
    assert "1.2.3.5" not in await box.name("other.example")
    assert await box.tcp("1.2.3.5") == CLOSED
    assert world.seen() == [], "not even the question leaves"
    assert {"reason": "unlisted", "protocol": "dns", "name": "other.example"}.items() <= box.refusals()[-2].items()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ALLOWED.example", 0),
        ("a.wild.example", 0),
        ("A.b.WILD.example", 0),
        ("wild.example", 5),
        ("xwild.example", 5),
        ("sub.allowed.example", 5),
        ("allowed.example.evil", 5),
    ],
)
async def test_wildcards_and_letters(box: Guest, world: World, name: str, code: int) -> None:
    world.names(**{name.lower().replace(".", "_"): [(name.lower(), "A", 60, "1.2.3.4")]})
    for stream in (False, True):
        assert (await box.dns(GATEWAY, name, stream=stream))["code"] == code


async def test_every_server_is_ours(box: Guest, world: World) -> None:
    world.names(other_example=[("other.example", "A", 60, "1.2.3.5")])
    world.seen()
    for server in ("9.9.9.9", "8.8.8.8", "10.1.2.3", "2600:9::1"):
        for stream in (False, True):
            assert (await box.dns(server, "other.example", stream=stream))["code"] == 5
        # Nor by TLS or HTTPS, whose questions nobody reads: only what an answer of ours has opened is open.
        for port in (853, 443):
            assert await box.tcp(server, port) in REFUSED
            assert await box.udp(server, port) in REFUSED
    assert await box.dns("9.9.9.9", "other.example", stream=True, port=853) == CLOSED
    assert await box.tcp("8.8.8.8", 443) == CLOSED
    assert world.seen() == []


async def test_a_name_whose_address_changes(box: Guest, world: World) -> None:
    world.names(allowed_example=[("allowed.example", "A", 1, "1.2.3.4")])
    assert await box.name("allowed.example") == ["1.2.3.4"]
    held = await box.do("pull", address="1.2.3.4", port=19, size=1 << 16)
    world.names(allowed_example=[("allowed.example", "A", 60, "1.2.3.5")])
    assert await box.name("allowed.example") == ["1.2.3.5"]
    assert "outside" in await box.tcp("1.2.3.5")
    # The shortest time that an answer lives is five seconds.
    deadline = asyncio.get_running_loop().time() + 20
    while await box.tcp("1.2.3.4") != CLOSED:
        assert asyncio.get_running_loop().time() < deadline
    assert "outside" in await box.tcp("1.2.3.5")
    assert await box.do("more", number=held) == "goes on", "what began in time goes on"


async def test_an_allowed_name_opens_no_shielded_address(box: Guest, world: World) -> None:
    private = ["10.88.0.5", "127.0.0.1", "169.254.169.254", "93.184.216.2", "45.45.45.5"]
    world.names(allowed_example=[("allowed.example", "A", 60, each) for each in (*private, "1.2.3.4")])
    assert await box.name("allowed.example") == ["1.2.3.4"]
    for address in private:
        if address != "127.0.0.1":
            assert await box.tcp(address) == CLOSED, address


async def test_aliases_are_followed_and_strangers_in_the_answer_are_not(box: Guest, world: World) -> None:
    world.names(
        allowed_example=[
            ("allowed.example", "CNAME", 60, "cdn.elsewhere.example"),
            ("cdn.elsewhere.example", "A", 60, "1.2.3.4"),
            ("stranger.example", "A", 60, "1.2.3.5"),
        ]
    )
    assert await box.name("allowed.example") == ["1.2.3.4"]
    assert await box.tcp("1.2.3.5") == CLOSED


async def test_long_answers_come_whole(box: Guest, world: World) -> None:
    world.names(allowed_example=[("allowed.example", "TXT", 60, "x" * 4000)])
    cut = await box.dns(GATEWAY, "allowed.example", kind=16)
    assert (cut["cut"], cut["answers"]) == (True, 0)
    whole = await box.dns(GATEWAY, "allowed.example", kind=16, stream=True)
    assert (whole["cut"], whole["answers"]) == (False, 1)
    assert whole["size"] > 4000


async def test_a_policy_without_the_name_closes_its_addresses(box: Guest, world: World) -> None:
    world.names(allowed_example=[("allowed.example", "A", 60, "1.2.3.4")])
    assert await box.name("allowed.example") == ["1.2.3.4"]
    held = await box.do("pull", address="1.2.3.4", port=19, size=1 << 16)
    await box.container.set_network_policy(allow_domain=["*.wild.example"])
    assert await box.do("more", number=held) == "ECONNRESET"
    assert await box.tcp("1.2.3.4") == CLOSED


async def test_the_files_of_names(box: Guest) -> None:
    shown = await box.container.run(["sh", "-c", "cat /etc/resolv.conf /etc/hosts; hostname"], text=True)
    assert "nameserver 9.9.9.9" in shown.stdout
    assert "127.0.1.1\tinside" in shown.stdout.replace(" ", "\t")
    assert shown.stdout.endswith("inside\n")
