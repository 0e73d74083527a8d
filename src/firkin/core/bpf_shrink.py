"""A seccomp filter made shorter without changing what it decides.

libseccomp writes a comparison for each system call; the kernel of a guest then translates, checks and tries out every
instruction when the filter is set, which is slow under emulation. Neighbouring calls mostly share their verdict, so a
search over ranges of numbers says the same in a fraction of the length (docs/decisions/lowering.md has figures).

Source of the instructions: linux/bpf_common.h and linux/seccomp.h (`struct seccomp_data`: number at 0, architecture at
4, arguments from 16).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["shrink"]

_LOAD, _RETURN, _JUMP = 0x20, 0x06, 0x05
_EQUAL, _GREATER, _AT_LEAST = 0x15, 0x25, 0x35
_NUMBER_AT, _ARCH_AT = 0, 4
_FORMAT = struct.Struct("=HBBI")
# A conditional jump skips at most that many instructions.
_FARTHEST = 255


class _Instruction(NamedTuple):
    code: int
    on_true: int
    on_false: int
    k: int


class _Verdict(NamedTuple):
    """What a number comes to: `returns`, or the place in the old program where the arguments begin to matter."""

    returns: int
    place: int = -1


class _Unsuitable(Exception):
    """The program does something that the analysis does not follow."""


def shrink(program: bytes) -> bytes:
    """`program` (`struct sock_filter[]`), or a shorter one that decides the same for every architecture, number and
    arguments.
    """
    old = [_Instruction(*fields) for fields in _FORMAT.iter_unpack(program)]
    try:
        new = _Writer(old).write()
    except _Unsuitable:
        return program
    return min(program, b"".join(_FORMAT.pack(*instruction) for instruction in new), key=len)


def _follow(old: list[_Instruction], arch: int, number: int) -> _Verdict:
    """Run the program until it returns or looks at something else than architecture and number."""
    place = value = 0
    while True:
        code, on_true, on_false, k = old[place]
        if code == _LOAD and k in (_NUMBER_AT, _ARCH_AT):
            value = number if k == _NUMBER_AT else arch
        elif code == _LOAD:
            return _Verdict(0, place)
        elif code == _RETURN:
            return _Verdict(k)
        elif code == _JUMP:
            place += k
        elif code in (_EQUAL, _GREATER, _AT_LEAST):
            met = value == k if code == _EQUAL else value > k if code == _GREATER else value >= k
            place += on_true if met else on_false
        else:
            raise _Unsuitable
        place += 1


class _Writer:
    """Writes the new program from its end, so that every jump's target is there before the jump."""

    def __init__(self, old: list[_Instruction]) -> None:
        self._old = old
        self._new: list[_Instruction] = []
        self._copied: dict[int, int] = {}
        self._returns: dict[int, int] = {}
        # Alike parts for several architectures are written once.
        self._written: dict[tuple[int, int, tuple[int, ...]], int] = {}

    def write(self) -> list[_Instruction]:
        tables: list[tuple[int, tuple[tuple[int, _Verdict], ...]]] = []
        numbers = self._edges(_NUMBER_AT)
        for arch in self._edges(_ARCH_AT):
            verdicts = _merged([(number, _follow(self._old, arch, number)) for number in numbers])
            if not tables or tables[-1][1] != verdicts:
                tables.append((arch, verdicts))
        for place in self._places([verdict for _, table in tables for _, verdict in table]):
            self._copy(place)
        labels = {table: self._table(table) for table in dict.fromkeys(table for _, table in tables)}
        self._search([(arch, labels[table]) for arch, table in tables])
        self._emit(_Instruction(_LOAD, 0, 0, _ARCH_AT))
        return self._new[::-1]

    def _edges(self, offset: int) -> list[int]:
        """The values at which a comparison of what lies at `offset` can change its outcome, 0 first."""
        edges = {0}
        todo = [(0, -1)]
        seen = set(todo)
        while todo:
            place, loaded = todo.pop()
            code, _, _, k = self._old[place]
            if code == _LOAD:
                loaded = k
            elif loaded == offset and code in (_EQUAL, _GREATER, _AT_LEAST):
                edges |= {k, min(k + 1, 0xFFFF_FFFF)}
            new = {(after, loaded) for after in self._next(place)} - seen
            seen |= new
            todo.extend(new)
        return sorted(edges)

    def _places(self, verdicts: list[_Verdict]) -> list[int]:
        """Everything of the old program that can be reached from where arguments matter, the last first."""
        todo = {verdict.place for verdict in verdicts if verdict.place >= 0}
        seen: set[int] = set()
        while todo:
            place = todo.pop()
            seen.add(place)
            todo |= set(self._next(place)) - seen
        return sorted(seen, reverse=True)

    def _next(self, place: int) -> tuple[int, ...]:
        code, on_true, on_false, k = self._old[place]
        if code == _RETURN:
            return ()
        if code == _JUMP:
            return (place + 1 + k,)
        if code & 7 == _JUMP:
            return (place + 1 + on_true, place + 1 + on_false)
        return (place + 1,)

    def _copy(self, place: int) -> None:
        code, _, _, k = self._old[place]
        targets = tuple(self._copied[after] for after in self._next(place))
        same = (code, k, targets)
        if code == _RETURN:
            self._copied[place] = self._returned(k)
        elif code == _JUMP:
            self._copied[place] = targets[0]
        elif same in self._written:
            self._copied[place] = self._written[same]
        elif len(targets) == 2:
            self._copied[place] = self._written[same] = self._branch(code, k, *targets)
        else:
            self._fall_into(targets[0])
            self._copied[place] = self._written[same] = self._emit(self._old[place])

    def _table(self, verdicts: tuple[tuple[int, _Verdict], ...]) -> int:
        """The search of one architecture: its label."""
        for _, verdict in verdicts:
            if verdict.place < 0:
                self._returned(verdict.returns)
        found = [(edge, self._label(verdict)) for edge, verdict in verdicts]
        self._search(found)
        return self._emit(_Instruction(_LOAD, 0, 0, _NUMBER_AT))

    def _label(self, verdict: _Verdict) -> int:
        return self._copied[verdict.place] if verdict.place >= 0 else self._returned(verdict.returns)

    def _search(self, ranges: list[tuple[int, int]]) -> int:
        """Instructions that find the label of the range that holds the value loaded; the label of the first of them.

        `ranges` are (first value, label), ascending. A single value between two alike takes one comparison.
        """
        if len(ranges) == 1:
            label = ranges[0][1]
            self._fall_into(label)
            return len(self._new) - 1
        return self._branch_over(ranges)

    def _branch_over(self, ranges: list[tuple[int, int]]) -> int:
        if len(ranges) == 1:
            return ranges[0][1]
        if len(ranges) == 3 and ranges[0][1] == ranges[2][1] and ranges[2][0] == ranges[1][0] + 1:
            return self._branch(_EQUAL, ranges[1][0], ranges[1][1], ranges[0][1])
        middle = len(ranges) // 2
        upper = self._branch_over(ranges[middle:])
        lower = self._branch_over(ranges[:middle])
        return self._branch(_AT_LEAST, ranges[middle][0], upper, lower)

    def _returned(self, value: int) -> int:
        """A return of `value` within reach of the next instructions."""
        label = self._returns.get(value)
        if label is None or len(self._new) - label > _FARTHEST // 2:
            label = self._returns[value] = self._emit(_Instruction(_RETURN, 0, 0, value))
        return label

    def _branch(self, code: int, k: int, on_true: int, on_false: int) -> int:
        # The first trampoline moves the second target one away; so measure with one to spare.
        on_true = self._near(on_true)
        on_false = self._near(on_false)
        here = len(self._new)
        return self._emit(_Instruction(code, here - on_true - 1, here - on_false - 1, k))

    def _near(self, label: int) -> int:
        distance = len(self._new) - label
        if distance < _FARTHEST:
            return label
        if self._new[label].code == _RETURN:
            return self._returned(self._new[label].k)
        return self._emit(_Instruction(_JUMP, 0, 0, distance - 1))

    def _fall_into(self, label: int) -> None:
        """Make `label` the next instruction to run."""
        if label != len(self._new) - 1:
            self._emit(_Instruction(_JUMP, 0, 0, len(self._new) - label - 1))

    def _emit(self, instruction: _Instruction) -> int:
        self._new.append(instruction)
        return len(self._new) - 1


def _merged(verdicts: list[tuple[int, _Verdict]]) -> tuple[tuple[int, _Verdict], ...]:
    merged: list[tuple[int, _Verdict]] = []
    for edge, verdict in verdicts:
        if not merged or merged[-1][1] != verdict:
            merged.append((edge, verdict))
    return tuple(merged)
