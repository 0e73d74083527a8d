"""What may be reached: the shield, rules, names; written, read and compared."""

from __future__ import annotations

import ipaddress
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import InvalidInputError
from firkin.network.policy import Place, Policy, Rule, normal_name
from firkin.network.shield import block_of, embedded, parse_block


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def refusal(policy: Policy, address: str, port: int = 80, place: Place = "", *, pinned: bool = False) -> str | None:
    return policy.refusal(packed(address), port, "tcp", place, pinned=pinned)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("1.1.1.1", None),
        ("172.32.0.1", None),
        ("100.128.0.1", None),
        ("2606:4700::1", None),
        ("64:ff9b::1.1.1.1", None),
        ("2002:101:101::1", None),
        ("10.0.0.1", "private"),
        ("100.100.0.1", "private"),
        ("127.0.0.53", "loopback"),
        ("169.254.169.254", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("224.0.0.251", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::1", "loopback"),
        ("::", "unspecified"),
        ("::7f00:1", "reserved"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:1.1.1.1", "reserved"),
        ("64:ff9b::169.254.169.254", "link-local"),
        ("64:ff9b:1::1", "reserved"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("2001:0:a00:1::1", "reserved"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("2001:db8::1", "reserved"),
        ("4000::1", "reserved"),
    ],
)
def test_the_shield(address: str, why: str | None) -> None:
    assert refusal(Policy(), address) == why


@given(st.integers(0, 2**32 - 1))
def test_the_shield_knows_what_pythons_tables_call_global(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    # 192.88.99.0/24 is deprecated: ours refuses it, Python's tables have it as global.
    shielded = block_of(address.packed) is not None
    deprecated = address in ipaddress.ip_network("192.88.99.0/24")
    assert shielded == (not address.is_global or address.is_multicast or deprecated)


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_is_freer_than_in_pythons_tables(address: ipaddress.IPv6Address) -> None:
    if block_of(address.packed) is None and embedded(address.packed) is None:
        assert address.is_global


def test_places() -> None:
    assert refusal(Policy(), "1.1.1.1", place="host") == "host"
    assert refusal(Policy(), "1.1.1.1", place="neighbour") == "neighbour"
    assert refusal(Policy(), "1.1.1.1", place="broadcast") == "broadcast"
    wide = Policy.of(allow_net=["1.0.0.0/8"])
    assert refusal(wide, "1.1.1.1", place="host") == "host"
    assert refusal(wide, "1.1.1.1", place="neighbour") is None
    assert refusal(Policy.of(allow_net=["1.1.1.1"]), "1.1.1.1", place="host") is None
    assert refusal(Policy.of(allow_net=["all"]), "1.1.1.1", place="neighbour") == "neighbour"


def test_only_a_rule_within_a_shielded_range_opens_it() -> None:
    assert refusal(Policy.of(allow_net=["all"]), "10.0.0.1") == "private"
    assert refusal(Policy.of(allow_net=["8.0.0.0/5"]), "10.0.0.1") == "private"
    for address in ("::", "::ffff:1.1.1.1", "::ffff:127.0.0.1", "::1", "::7f00:1", "fe80::1", "fd00::1", "0.0.0.0"):
        assert refusal(Policy.of(allow_net=["all", "::/1"]), address) is not None, address
    assert refusal(Policy.of(allow_net=["::/128", "0.0.0.0/32"]), "::") == "unspecified"
    assert refusal(Policy.of(allow_net=["4000::/16"]), "4000::1") is None
    assert refusal(Policy.of(allow_net=["10.0.0.0/8"]), "10.0.0.1") is None
    assert refusal(Policy.of(allow_net=["224.0.0.0/4"]), "224.0.0.1") == "multicast"


def test_denied_wins_over_allowed_in_every_form() -> None:
    policy = Policy.of(allow_net=["all", "10.0.0.0/8"], deny_net=["10.0.0.0/24", "1.1.1.1:53/udp"])
    assert refusal(policy, "10.0.1.1") is None
    assert refusal(policy, "10.0.0.1") == "denied"
    assert refusal(policy, "64:ff9b::a00:1") == "denied"
    assert refusal(policy, "1.1.1.1", 53) is None
    assert policy.refusal(packed("1.1.1.1"), 53, "udp") == "denied"
    assert refusal(policy, "1.1.1.1", pinned=True) is None
    assert refusal(Policy.of(deny_net=["all"]), "1.1.1.1", pinned=True) == "denied"


def test_what_is_not_listed() -> None:
    policy = Policy.of(allow_net=["1.1.1.0/24:443-445/tcp"])
    assert refusal(policy, "1.1.1.7", 444) is None
    assert refusal(policy, "1.1.1.7", 446) == "unlisted"
    assert policy.refusal(packed("1.1.1.7"), 444, "udp") == "unlisted"
    assert refusal(Policy.of(allow_domain=["a.example"]), "1.1.1.7") == "unlisted"
    assert refusal(Policy.of(allow_domain=["a.example"]), "1.1.1.7", pinned=True) is None
    assert refusal(Policy.of(allow_domain=["a.example"]), "10.0.0.1", pinned=True) == "private"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("Example.COM.", ["example.com"], ["www.example.com", "xexample.com", "example.com.evil"]),
        ("*.example.com", ["www.example.com", "a.b.example.com"], ["example.com", "wwwexample.com"]),
        ("*", ["anything", "a.b"], []),
        ("bücher.example", ["xn--bcher-kva.example"], ["bücher.example"]),
    ],
)
def test_names(pattern: str, yes: list[str], no: list[str]) -> None:
    policy = Policy.of(allow_domain=[pattern])
    assert [name for name in yes if not policy.allows_name(normal_name(name))] == []
    assert [name for name in no if policy.allows_name(normal_name(name))] == []
    assert Policy().allows_name("anything")
    assert not Policy.of(allow_net=["1.1.1.1"]).allows_name("anything")
    assert not Policy.of(deny_net=["all"], allow_domain=["anything"]).allows_name("anything")
    assert Policy.of(deny_net=["0.0.0.0/0", "all:80"]).allows_name("anything")


@pytest.mark.parametrize(
    "text", ["", "x", "1.1.1.1/33", "1.1.1.1/8", "1.1.1", "::1/200", "1.1.1.1:0", "1.1.1.1:70000", "1.1.1.1:9-8",
             "1.1.1.1:80/icmp", "[::1]:", "1.1.1.1/-1", "1.1.1.1/٣", "all:"],
)  # fmt: skip
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Rule.parse(text)


@pytest.mark.parametrize("text", ["", "a..b", "-a.example", "*.*.a", "a b", "a" * 64, "*a.example"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Policy.of(allow_domain=[text])


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "1.1.1.1/32:80", "1.1.1.1/32:80-90/udp", "[2600::/16]:443/tcp", "2600::/16"]
)
def test_rules_are_written_as_they_are_read(text: str) -> None:
    (rule,) = Rule.parse(text)
    assert str(rule) == text


@given(st.ip_addresses(), st.integers(0, 128), st.integers(1, 65535))
def test_a_rule_holds_what_pythons_network_does(address: object, prefix: int, port: int) -> None:
    assert isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
    network = ipaddress.ip_network((address, min(prefix, address.max_prefixlen)), strict=False)
    (rule,) = Rule.parse(str(network))
    for other in (network[0], network[-1], ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("2600::1")):
        assert rule.holds(other.packed, port, "tcp") == (other in network)


def test_a_policy_survives_the_control_socket() -> None:
    policy = Policy.of(allow_net=["all:443", "2600::/16"], deny_net=["1.1.1.1:53/udp"], allow_domain=["*.a.example"])
    assert Policy.from_json(json.dumps(policy.as_document())) == policy
    for text in ("[]", "{", '{"x": []}', '{"allow_net": ["x"]}', '{"allow_net": 5}'):
        with pytest.raises(InvalidInputError):
            Policy.from_json(text)


def test_blocks_within_blocks() -> None:
    assert parse_block("10.1.0.0/16").within(parse_block("10.0.0.0/8"))
    assert not parse_block("10.0.0.0/8").within(parse_block("10.1.0.0/16"))
    assert not parse_block("::/0").within(parse_block("0.0.0.0/0"))
