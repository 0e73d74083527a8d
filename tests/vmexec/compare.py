"""What two outcomes of one specification differ in, once what can't be equal is taken out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.vmexec.rig_vm import Outcome

# Of /proc/self/status: what a process is allowed and who it is; not memory, times and counts.
STATUS = re.compile(
    r"^(Umask|Uid|Gid|Groups|NSt?gid|NSpid|NSpgid|NSsid|TracerPid|Threads|SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt|Cap\w+"
    r"|NoNewPrivs|Seccomp\w*|Speculation\w*|Cpus_allowed_list|Mems_allowed_list):[ \t]*(.*)$",
    re.MULTILINE,
)

# Numbers of proc's inodes: the initial namespaces have the first ones (include/linux/proc_ns.h, fs/proc/generic.c).
FIRST_OWN_NAMESPACE = 4026531900


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """By name of the fact, what each saw."""
    if ours["ran"] != theirs["ran"]:
        return {"ran": (ours["ran"], theirs["ran"])}
    names = sorted(ours.keys() | theirs.keys())
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}


def facts(outcome: Outcome, given: set[str]) -> dict[str, Any]:
    """Everything comparable, in names that say what it is; `given` are the namespaces that rows join."""
    return {"ran": bool(outcome.seen), **dict(_facts(outcome, given))}


def _facts(outcome: Outcome, given: set[str]) -> Iterator[tuple[str, Any]]:
    seen = outcome.seen
    if not seen:
        return
    yield "exit code", outcome.code
    # In the VM's own pid namespace a pid is as it comes.
    own_pids = not _initial(seen["ns/pid"])
    for name, value in seen.items():
        if name == "status":
            found = ((f"status/{match[1]}", match[2].strip()) for match in STATUS.finditer(value))
            yield from (pair for pair in found if own_pids or not pair[0].startswith("status/NS"))
        elif name == "mountinfo":
            yield from _mounts(value)
        elif name == "limits":
            yield from ((f"limit/{line[:26].strip()}", line[26:].split()[:2]) for line in value.splitlines()[1:])
        elif name.startswith("ns/"):
            yield name, value if value in given else "initial" if _initial(value) else "own"
        else:
            yield name, value


def _initial(namespace: str) -> bool:
    """Whether "kind:[number]" is one that the VM began with."""
    return int(namespace.partition("[")[2].rstrip("]")) < FIRST_OWN_NAMESPACE


def _mounts(text: str) -> Iterator[tuple[str, str]]:
    """proc(5), /proc/pid/mountinfo: without the ids and device numbers, peer groups without their numbers."""
    count: dict[str, int] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, root, place, options, *optional = left.split(" ")
        peers = " ".join(re.sub(r":\d+", "", word) for word in optional)
        count[place] = count.get(place, 0) + 1
        stacked = f" ({count[place]})" if count[place] > 1 else ""
        yield f"mount/{place}{stacked}", f"{root} {options} [{peers}] {right}"
