"""Pausing, waiting from another process, and what a paused container refuses, in real VMs."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable

import pytest

import firkin as library
from firkin.errors import StateError
from firkin.oci import Image
from tests.cli.conftest import Firkin

pytestmark = pytest.mark.vm
Start = Callable[..., "subprocess.Popen[str]"]

# Seconds between the clocks of host and guest that an exec's own time, on a busy machine, explains.
SLACK = 2.0


def test_nothing_runs_while_paused_and_the_clock_is_right_after(busybox_image: Image) -> None:
    script = "n=0; while sleep 0.05; do n=$((n+1)); echo $n > /tmp/count; done"
    with library.Container.launch("busybox", ["sh", "-c", script]) as box:
        box.pause()
        assert box.paused
        for call in (box.pause, box.kill, lambda: box.run(["true"]), lambda: box.snapshot("never")):
            with pytest.raises(StateError, match="is paused"):
                call()
        # The VM's time stands still: it falls behind by as long as this lasts.
        time.sleep(2 * SLACK)
        box.resume()
        before = time.time()
        inside = float(box.run(["date", "+%s"], text=True).stdout)  # type: ignore[arg-type]
        assert before - SLACK <= inside <= time.time() + SLACK
        with pytest.raises(StateError, match="is not paused"):
            box.resume()
        box.pause()
        # What is paused is stopped all the same.
        assert box.stop(grace=0).signal == 9
        for call in (box.pause, lambda: box.snapshot("never")):
            with pytest.raises(StateError, match="has ended"):
                call()


def test_pause_unpause_and_wait_from_another_process(firkin: Firkin, start_firkin: Start, busybox_image: Image) -> None:
    name = f"box-{secrets.token_hex(3)}"
    owner = start_firkin("run", "-i", "--name", name, "busybox", "sh", "-c", "echo ready; read word; exit 42",
                         stdin=subprocess.PIPE)  # fmt: skip
    assert owner.stdout is not None
    assert owner.stdin is not None
    assert owner.stdout.readline() == "ready\n"
    waiting = start_firkin("wait", name)
    assert firkin("pause", name).stdout == f"{name}\n"
    (document,) = json.loads(firkin("inspect", name).stdout)
    assert document["status"] == "paused"
    refused = firkin("exec", name, "true")
    assert (refused.returncode, f"firkin unpause {name}" in refused.stderr) == (125, True)
    assert firkin("unpause", name).stdout == f"{name}\n"
    owner.stdin.write("go\n")
    owner.stdin.flush()
    assert waiting.communicate(timeout=60)[0] == "42\n"
    assert owner.wait(timeout=60) == 42
