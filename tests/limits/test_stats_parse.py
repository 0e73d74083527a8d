"""Counters out of the guest's texts, whatever it writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.core.stats import HostCost, Stats, host_cost, read_stats
from firkin.vminitd._generated import agent_pb2 as pb

HOST = HostCost(7, None, 3)
CGROUP = {
    "cpu.stat": "usage_usec 407948\n"
    "user_usec 37773\nsystem_usec 370175\nnr_periods 4\nnr_throttled 2\nthrottled_usec 9\n",
    "io.stat": "254:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n254:16 rbytes=1 wbytes=2 rios=1 wios=1\n",
    "memory.current": "1000\n",
    "memory.peak": "2000\n",
    "memory.max": "max\n",
    "memory.stat": "anon 32\ninactive_file 400\n",
    "memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n",
    "pids.current": "5\n",
    "pids.max": "64\n",
}
PROC = {
    "meminfo": "MemTotal:         481188 kB\nMemAvailable:     443432 kB\nHugePages_Total:       0\n",
    "uptime": "9.95 6.23\n",
    "loadavg": "0.24 0.05 0.02 1/56 90\n",
    "net/dev": "Inter-|   Receive\n face |bytes    packets errs\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
    "  eth0:10 2 0 1 0 0 0 0 20 4 0 3 0 0 0 0\n",
}


def test_every_field_has_its_place() -> None:
    stats = read_stats("box", pb.StatisticsReply(cgroup=CGROUP, pids=[1, 2]), pb.StatisticsReply(proc=PROC), HOST)
    document = stats.as_document()
    del document["read_at"]
    assert document == {
        "id": "box",
        "processes": 2,
        "tasks": 5,
        "tasks_limit": 64,
        "cpu": {"usage_usec": 407948, "user_usec": 37773, "system_usec": 370175,
                "throttled_usec": 9, "periods": 4, "throttled_periods": 2},
        "memory": {"current": 1000, "working_set": 600, "peak": 2000, "limit": None,
                   "events": {"high": 1, "max": 2, "oom": 3, "oom_kill": 4}},
        "block": {"read_bytes": 11, "written_bytes": 22, "reads": 4, "writes": 5},
        "network": ({"name": "eth0", "received_bytes": 10, "received_packets": 2, "received_dropped": 1,
                     "sent_bytes": 20, "sent_packets": 4, "sent_dropped": 3},),
        "vm": {"memory_total": 481188 * 1024, "memory_available": 443432 * 1024, "uptime": 9.95, "load": 0.24},
        "host": {"pid": 7, "pss": None, "cpu_usec": 3},
    }  # fmt: skip
    assert Stats.from_document(stats.as_document()) == stats


@given(
    st.dictionaries(st.sampled_from(sorted(CGROUP)), st.text(max_size=60)),
    st.dictionaries(st.sampled_from(sorted(PROC)), st.text(max_size=60)),
)
def test_nothing_that_a_guest_writes_fails(cgroup: dict[str, str], proc: dict[str, str]) -> None:
    stats = read_stats("box", pb.StatisticsReply(cgroup=cgroup), pb.StatisticsReply(proc=proc), HOST)
    assert Stats.from_document(stats.as_document()) == stats


@pytest.mark.parametrize("text", ["9" * 4300, "9" * 20, "-1", "٣", "1e9", ""])
def test_numbers_that_no_kernel_writes_are_bounded(text: str) -> None:
    stats = read_stats("box", pb.StatisticsReply(cgroup={"memory.current": text}), pb.StatisticsReply(), HOST)
    assert 0 <= stats.memory.current < 1 << 64


def test_the_cost_of_a_process() -> None:
    mine = host_cost(os.getpid())
    assert mine.cpu_usec > 0
    assert mine.pss is not None
    assert mine.pss > 1 << 20
    assert host_cost(os.getpid(), Path("/nonexistent")) == HostCost(os.getpid(), None, 0)
