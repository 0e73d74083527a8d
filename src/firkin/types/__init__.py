"""Validated value types: each refuses what is wrong with an `InvalidInputError` that names it and carries the value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin.lazy import attributes

if TYPE_CHECKING:
    from firkin.types.capability import Capability, LinuxCapabilities
    from firkin.types.digest import Digest
    from firkin.types.hostname import Hostname
    from firkin.types.ids import ContainerId, PodId, ProcessId
    from firkin.types.paths import GuestPath
    from firkin.types.platform import Platform
    from firkin.types.reference import Reference
    from firkin.types.rlimit import Rlimit
    from firkin.types.signals import Signal
    from firkin.types.size import Size
    from firkin.types.state import StateDirs
    from firkin.types.stdio import PtySize, Stdio
    from firkin.types.user import User
    from firkin.types.vsock import VirtiofsTag, VsockPort

__all__ = [
    "Capability",
    "ContainerId",
    "Digest",
    "GuestPath",
    "Hostname",
    "LinuxCapabilities",
    "Platform",
    "PodId",
    "ProcessId",
    "PtySize",
    "Reference",
    "Rlimit",
    "Signal",
    "Size",
    "StateDirs",
    "Stdio",
    "User",
    "VirtiofsTag",
    "VsockPort",
]

__getattr__ = attributes(
    __name__,
    {
        "Capability": "capability",
        "ContainerId": "ids",
        "Digest": "digest",
        "GuestPath": "paths",
        "Hostname": "hostname",
        "LinuxCapabilities": "capability",
        "Platform": "platform",
        "PodId": "ids",
        "ProcessId": "ids",
        "PtySize": "stdio",
        "Reference": "reference",
        "Rlimit": "rlimit",
        "Signal": "signals",
        "Size": "size",
        "StateDirs": "state",
        "Stdio": "stdio",
        "User": "user",
        "VirtiofsTag": "vsock",
        "VsockPort": "vsock",
    },
)
