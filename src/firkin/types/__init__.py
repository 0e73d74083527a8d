"""Validated value types: each refuses what is wrong with an `InvalidInputError` that names it and carries the value."""

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
