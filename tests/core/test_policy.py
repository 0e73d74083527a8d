"""`--security-opt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.core.policy import SecurityOptions
from firkin.core.seccomp import Seccomp
from firkin.errors import InvalidInputError


def test_options_are_read_together(tmp_path: Path) -> None:
    file = tmp_path / "p=1.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    options = (
        f"seccomp={file}",
        "apparmor=my-profile",
        "label=type:spc_t",
        "label:level:s0:c1,c2",
        "no-new-privileges",
        "systempaths=unconfined",
    )
    found = SecurityOptions.parse(options)
    assert isinstance(found.seccomp, Seccomp)
    assert found.apparmor_profile == "my-profile"
    assert found.selinux_label == "system_u:system_r:spc_t:s0:c1,c2"
    assert found.no_new_privileges is True
    assert found.system_paths_unconfined


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("seccomp=unconfined", "seccomp", "unconfined"),
        ("seccomp:unconfined", "seccomp", "unconfined"),
        ("seccomp=default", "seccomp", "default"),
        ("no-new-privileges:true", "no_new_privileges", True),
        ("no-new-privileges=false", "no_new_privileges", False),
        ("label=disable", "selinux_label", ""),
    ],
)
def test_each(option: str, field: str, value: object) -> None:
    assert getattr(SecurityOptions.parse((option,)), field) == value


def test_nothing_given_is_the_default() -> None:
    assert SecurityOptions.parse(()) == SecurityOptions()


@pytest.mark.parametrize(
    "option",
    [
        "",
        "nope",
        "seccomp",
        "seccomp=",
        "seccomp=/no/such/file",
        "apparmor",
        "label=",
        "label=x:y",
        "label=type:",
        "systempaths=all",
        "no-new-privileges=maybe",
    ],
)
def test_wrong_options(option: str) -> None:
    with pytest.raises(InvalidInputError):
        SecurityOptions.parse((option,))
