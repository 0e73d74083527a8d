"""Capabilities, and the sets of a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.errors import InvalidInputError
from firkin.types import Capability, LinuxCapabilities

CAPS = st.sets(st.sampled_from(list(Capability)))


def test_names_are_read_in_any_form() -> None:
    for text in ("NET_ADMIN", "cap_net_admin", " Net_Admin "):
        assert Capability.parse(text) is Capability.NET_ADMIN
    with pytest.raises(InvalidInputError, match="'NOPE' is not a capability"):
        Capability.parse("NOPE")


def test_all_of_linux_are_there() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert len(Capability) >= last + 1 or last > 40
    assert list(Capability)[12] == "CAP_NET_ADMIN"
    assert list(Capability)[40] == "CAP_CHECKPOINT_RESTORE"


def test_the_fourteen() -> None:
    names = (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
    )
    wanted = {f"CAP_{name}" for name in [*names.split(), "AUDIT_WRITE"]}
    default = LinuxCapabilities.default_oci()
    assert set(default.bounding) == set(default.effective) == set(default.permitted) == wanted
    assert default.inheritable == default.ambient == ()


def test_all_empty_single() -> None:
    assert LinuxCapabilities.all().bounding == tuple(Capability)
    assert LinuxCapabilities.empty() == LinuxCapabilities()
    single = LinuxCapabilities.single_set(["chown", Capability.CHOWN])
    assert {getattr(single, name) for name in LinuxCapabilities.__slots__} == {(Capability.CHOWN,)}


@given(CAPS, CAPS, CAPS)
def test_add_and_drop_are_set_operations(held: set[Capability], add: set[Capability], drop: set[Capability]) -> None:
    sets = LinuxCapabilities.of(held)
    if add & drop:
        with pytest.raises(InvalidInputError, match="both added and dropped"):
            sets.changed(add=add, drop=drop)
        return
    changed = sets.changed(add=sorted(add), drop=sorted(drop, reverse=True))
    assert set(changed.bounding) == (held | add) - drop
    assert changed.bounding == changed.effective == changed.permitted


@given(CAPS, CAPS)
def test_all_is_a_start(held: set[Capability], named: set[Capability]) -> None:
    sets = LinuxCapabilities.of(held)
    assert set(sets.changed(add=named, drop=["ALL"]).bounding) == named
    assert set(sets.changed(add=["all"], drop=named).bounding) == set(Capability) - named


def test_dropping_reaches_every_set_and_adding_only_three() -> None:
    sets = LinuxCapabilities.single_set(["CHOWN", "KILL"]).changed(add=["BPF"], drop=["KILL"])
    assert sets.ambient == sets.inheritable == (Capability.CHOWN,)
    assert set(sets.effective) == {Capability.CHOWN, Capability.BPF}


def test_all_twice_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="ALL is both"):
        LinuxCapabilities.empty().changed(add=["ALL"], drop=["all"])
