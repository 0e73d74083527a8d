"""Sizes, ports, limits, signals and terminals."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import InvalidInputError
from firkin.types import PtySize, Rlimit, Signal, Size, Stdio, VsockPort


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("512MB", 512 << 20),
        ("1GiB", 1 << 30),
        ("1.5g", 3 << 29),
        ("2 KiB", 2048),
        ("1t", 1 << 40),
        ("10b", 10),
        ("0.1k", 102),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert Size.parse(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1.5", "1x", "1 2", "0x10", "1e3", "१", "9" * 30, "8388608t"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Size.parse(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (Size.gib(16), "16 GiB"),
        (Size.mib(512), "512 MiB"),
        (Size.kib(1), "1 KiB"),
        (Size.tib(2), "2 TiB"),
        ((1 << 20) - 1, "1 MiB"),
        ((1 << 63) - 1, "8 EiB"),
    ],
)
def test_sizes_print_in_units_of_1024(size: int, text: str) -> None:
    assert str(Size(size)) == f"{Size(size)}" == text


@given(st.integers(0, (1 << 63) - 1))
def test_what_is_printed_is_read_back_nearly(value: int) -> None:
    # One decimal is kept: half of a tenth is lost at most.
    if value < (1 << 59):
        assert abs(Size.parse(str(Size(value))) - value) <= value * 0.051
    assert Size(value) == value
    assert f"{Size(value):d}" == str(value)


@pytest.mark.parametrize("value", [-1, 1 << 63, True, 1.5, "1"])
def test_a_size_is_a_number_of_bytes(value: int) -> None:
    with pytest.raises(InvalidInputError):
        Size(value)


@pytest.mark.parametrize("port", [-1, 1 << 32, "1", True])
def test_wrong_ports(port: int) -> None:
    with pytest.raises(InvalidInputError):
        VsockPort(port)


@pytest.mark.parametrize("port", [1024, 0x1000_0000, 0x1800_0000, 0x2000_0000])
def test_reserved_ports_are_not_the_users(port: int) -> None:
    assert VsockPort(port).reserved
    with pytest.raises(InvalidInputError, match="reserved"):
        VsockPort.for_user(port)


@pytest.mark.parametrize("port", [0, 1023, 1025, 0x0FFF_FFFF, 0x2000_0001, 0xFFFF_FFFF])
def test_other_ports_are_the_users(port: int) -> None:
    assert VsockPort.for_user(port) == port


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024", Rlimit("RLIMIT_NOFILE", 1024, 1024)),
        ("nofile=1024:2048", Rlimit("nofile", 1024, 2048)),
        ("RLIMIT_CORE=0", Rlimit("Core", 0)),
        ("as=-1", Rlimit("as", (1 << 64) - 1)),
        ("stack=8:unlimited", Rlimit("stack", 8, (1 << 64) - 1)),
    ],
)
def test_rlimits(text: str, limit: Rlimit) -> None:
    assert Rlimit.parse(text) == limit
    assert Rlimit.parse(str(limit)) == limit


@pytest.mark.parametrize(
    "text", ["", "nofile", "nofile=", "nofile=1:", "files=1", "nofile=2:1", "nofile=x", "cpu=" + "9" * 21]
)
def test_wrong_rlimits(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Rlimit.parse(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("sigterm", 15),
        ("15", 15),
        (" Kill ", 9),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        ("POLL", 29),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert Signal.parse(text) == number
    assert Signal.parse(str(Signal(number))) == number


@given(st.integers(1, 64))
def test_every_signal_prints(number: int) -> None:
    text = str(Signal(number))
    assert text.startswith("SIG") or number in (32, 33)
    assert Signal(number) == number == Signal.parse(number)


def test_names_are_linux_s() -> None:
    assert str(Signal(signal.SIGUSR1)) == "SIGUSR1"


@pytest.mark.parametrize("text", ["", "0", "65", "FOO", "RTMIN+31", "RTMAX+1", "-1", "1.5"])
def test_wrong_signals(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Signal.parse(text)


def test_terminals() -> None:
    assert (PtySize().columns, PtySize().rows) == (80, 24)
    assert PtySize.parse("132x43") == PtySize(132, 43)
    assert str(PtySize(132, 43)) == "132x43"
    assert {mode.name for mode in Stdio} == {"NULL", "PIPED", "INHERIT"}


@pytest.mark.parametrize("text", ["", "80", "80x", "0x24", "80x65536", "-1x4", "axb"])
def test_wrong_terminals(text: str) -> None:
    with pytest.raises(InvalidInputError):
        PtySize.parse(text)
