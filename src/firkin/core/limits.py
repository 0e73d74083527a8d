"""Limits of a running container: what they become in its cgroup (version 2)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from firkin.errors import InvalidInputError
from firkin.frozen import dataclass
from firkin.types import Size

__all__ = ["Limits"]

_CPU_PERIOD_US = 100_000
# The kernel refuses a quota below a millisecond (cpu.max, cgroup-v2.rst).
_LEAST_CPUS = 0.01
# Docker's: with less, whatever runs is killed at once.
_LEAST_MEMORY = 6 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits to set; `None` leaves one as it is, -1 lifts it.

    `pids`: tasks. `cpus`: processors, fractions allowed. `memory`: bytes; above it the kernel kills (memory.max).
    `memory_high`: bytes; above it the kernel slows down and takes cache back (memory.high). `read_bps`, `write_bps`:
    bytes a second from and to the disk of the root filesystem, `read_iops`, `write_iops`: operations (io.max).
    """

    pids: int | None = None
    cpus: float | None = None
    memory: int | None = None
    memory_high: int | None = None
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None

    @classmethod
    def of(
        cls,
        *,
        pids_limit: int | None = None,
        cpus: float | None = None,
        memory: Size | int | str | None = None,
        memory_high: Size | int | str | None = None,
        read_bps: Size | int | str | None = None,
        write_bps: Size | int | str | None = None,
        read_iops: int | None = None,
        write_iops: int | None = None,
    ) -> Limits:
        """Checked limits of looser values (`"64m"`). Raises `InvalidInputError`."""
        if pids_limit is not None and pids_limit != -1 and pids_limit < 1:
            raise InvalidInputError(f"a limit of {pids_limit} processes allows none", value=pids_limit)
        if cpus is not None and cpus != -1 and not (math.isfinite(cpus) and cpus >= _LEAST_CPUS):
            raise InvalidInputError(f"{cpus} processors are out of range", value=cpus, hint=f"at least {_LEAST_CPUS}")
        for what, given in (("read", read_iops), ("write", write_iops)):
            if given is not None and given != -1 and given < 1:
                raise InvalidInputError(f"{given} {what} operations a second allow none", value=given)
        return cls(
            pids_limit,
            cpus,
            _bytes("memory", memory),
            _bytes("memory_high", memory_high),
            _bytes("read_bps", read_bps),
            _bytes("write_bps", write_bps),
            read_iops,
            write_iops,
        )

    @property
    def rates(self) -> tuple[tuple[str, int], ...]:
        """Those of the disk, by their names in io.max."""
        named = (
            ("rbps", self.read_bps),
            ("wbps", self.write_bps),
            ("riops", self.read_iops),
            ("wiops", self.write_iops),
        )
        return tuple((key, value) for key, value in named if value is not None)

    def cgroup_files(self, *, vcpus: int, disk: str = "") -> dict[str, str]:
        """What to write to which file, for a VM of `vcpus` processors, whose root's `disk` is `major:minor`.

        Raises `InvalidInputError` for more processors than the VM has, and where there is nothing to write.
        """
        files = {}
        if self.cpus is not None:
            if self.cpus > vcpus:
                raise InvalidInputError(
                    f"the VM has {vcpus} processors, not {self.cpus:g}",
                    value=self.cpus,
                    hint="start it with more --cpus",
                )
            quota = "max" if self.cpus == -1 else str(int(self.cpus * _CPU_PERIOD_US))
            files["cpu.max"] = f"{quota} {_CPU_PERIOD_US}"
        for name, value in (("memory.high", self.memory_high), ("memory.max", self.memory), ("pids.max", self.pids)):
            if value is not None:
                files[name] = "max" if value == -1 else str(value)
        if given := [f"{key}={'max' if value == -1 else value}" for key, value in self.rates]:
            files["io.max"] = " ".join((disk, *given))
        if not files:
            raise InvalidInputError("no limit was given", hint="name at least one")
        return files

    def to_json(self) -> str:
        """As the control socket carries it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Limits:
        """The reverse of `to_json`, checked as `of` does. Raises `InvalidInputError`."""
        try:
            given: dict[str, Any] = json.loads(text)
            return cls.of(
                pids_limit=given.get("pids"),
                cpus=given.get("cpus"),
                memory=given.get("memory"),
                memory_high=given.get("memory_high"),
                read_bps=given.get("read_bps"),
                write_bps=given.get("write_bps"),
                read_iops=given.get("read_iops"),
                write_iops=given.get("write_iops"),
            )
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError("malformed limits", value=text) from error


def _bytes(what: str, given: Size | int | str | None) -> int | None:
    if given is None or given in (-1, "-1"):
        return None if given is None else -1
    size = int(Size.parse(given) if isinstance(given, str) else Size(given))
    if size < 1:
        raise InvalidInputError(f"{what} of {size} bytes allows none", value=given)
    if what == "memory" and size < _LEAST_MEMORY:
        raise InvalidInputError(f"no process lives in {Size(size)} of memory", value=given, hint="at least 6 MiB")
    return size
