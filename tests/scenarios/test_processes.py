"""Scenarios: first and further processes, their streams, and an init."""

from __future__ import annotations

import hashlib
import signal

import pytest

import firkin
from firkin.core.container import AsyncContainer
from firkin.core.live import list_live
from firkin.errors import ExecError
from firkin.oci import Image
from firkin.types import StateDirs

pytestmark = pytest.mark.vm
scenario = pytest.mark.scenario

BYTES = hashlib.shake_256(b"scenario").digest(4 << 20)


@scenario("process true")
def test_true(plain: firkin.Container) -> None:
    assert plain.run(["true"]).returncode == 0


@scenario("process false")
def test_false(plain: firkin.Container) -> None:
    assert plain.run(["false"]).returncode == 1


@scenario("process echo hi")
def test_echo(busybox_image: Image) -> None:
    assert firkin.run("busybox", ["echo", "hi"]).stdout == b"hi\n"


@scenario("process no executable")
def test_no_executable(plain: firkin.Container) -> None:
    with pytest.raises(ExecError) as caught:
        plain.run(["/no/such/program"])
    assert caught.value.exit_code == 127


@scenario("process user")
def test_user(plain: firkin.Container) -> None:
    script = ["sh", "-c", "id -u; id -g; touch /root/x 2>/dev/null || echo kept out"]
    assert plain.run(script, user="1234:567", text=True).stdout == "1234\n567\nkept out\n"


@scenario("process home envvar")
def test_home(plain: firkin.Container) -> None:
    assert plain.run(["sh", "-c", "echo $HOME"], text=True).stdout == "/root\n"
    assert plain.run(["sh", "-c", "echo $HOME"], env={"HOME": "/given"}, text=True).stdout == "/given\n"


@scenario("process stdin")
def test_stdin(plain: firkin.Container) -> None:
    assert plain.run(["tr", "a-z", "A-Z"], input="typed\n", text=True).stdout == "TYPED\n"


@scenario("stdin binary data")
def test_binary_stdin(plain: firkin.Container) -> None:
    every = bytes(range(256)) * 16
    assert plain.run(["cat"], input=every).stdout == every


@scenario("stdin explicit close")
def test_closing_stdin(plain: firkin.Container) -> None:
    process = plain.exec(["wc", "-c"], stdin=firkin.Stdio.PIPED, stdout=firkin.Stdio.PIPED)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"12345")
    assert process.status is None
    process.stdin.close()
    assert process.stdout.read_all() == b"5\n"
    assert process.wait(timeout=60).code == 0


@scenario("large stdin input")
def test_large_stdin(busybox_image: Image) -> None:
    done = firkin.run("busybox", ["sha256sum"], input=BYTES, text=True)
    assert done.stdout == f"{hashlib.sha256(BYTES).hexdigest()}  -\n"


@scenario("exec large stdin input")
def test_large_stdin_of_exec(plain: firkin.Container) -> None:
    done = plain.run(["sha256sum"], input=BYTES, text=True)
    assert done.stdout == f"{hashlib.sha256(BYTES).hexdigest()}  -\n"


@scenario("container test large stdio ingest")
def test_large_output(plain: firkin.Container) -> None:
    script = "yes 0123456789abcde | head -c 8388608; yes edcba9876543210 | head -c 1048576 >&2"
    done = plain.run(["sh", "-c", script])
    assert done.stdout == b"0123456789abcde\n" * (8388608 // 16)
    assert done.stderr == b"edcba9876543210\n" * (1048576 // 16)


@scenario("multiple concurrent processes")
def test_concurrent_processes(plain: firkin.Container) -> None:
    # Each waits for the last: they can end only if all run at once.
    script = "touch /dev/shm/p$0; until [ -e /dev/shm/p8 ]; do sleep 0.05; done; echo $0; exit $0"
    started = [plain.exec(["sh", "-c", script, str(n)], stdout=firkin.Stdio.PIPED) for n in range(1, 9)]
    for n, process in enumerate(started, 1):
        assert process.stdout is not None
        assert process.stdout.read_all() == f"{n}\n".encode()
        assert process.wait(timeout=60).code == n


@scenario("container workingDir created")
def test_working_dir(plain: firkin.Container) -> None:
    assert plain.run(["pwd"], working_dir="/made/for/this", text=True).stdout == "/made/for/this\n"


@scenario("container hostname")
def test_hostname(special: firkin.Container) -> None:
    assert special.run(["hostname"], text=True).stdout == "named\n"


@scenario("container hostname defaults to container id")
def test_default_hostname(plain: firkin.Container) -> None:
    assert plain.run(["hostname"], text=True).stdout == f"{plain.id}\n"


@scenario("container manager")
def test_containers_are_listed(plain: firkin.Container, special: firkin.Container, busybox_image: Image) -> None:
    def live() -> set[str]:
        return {container.id for container in list_live(StateDirs.default())}

    with firkin.Container.launch("busybox", ["sleep", "600"], name="third") as third:
        assert {plain.id, special.id, third.id} <= live()
    assert {plain.id, special.id} <= live()
    assert "third" not in live()


@scenario("container non-closure constructor")
def test_options_as_a_value(busybox_image: Image) -> None:
    options: firkin.core.option_inputs.OptionInputs = {"env": {"WORD": "given"}, "working_dir": "/tmp"}
    assert firkin.run("busybox", ["sh", "-c", "echo $WORD; pwd"], **options).stdout == b"given\n/tmp\n"


@scenario("container stat")
async def test_stat(busybox_image: Image) -> None:
    async with await AsyncContainer.launch("busybox", ["sleep", "600"]) as box:
        await box.run(
            ["sh", "-c", "echo 12345 > /file; chmod 640 /file; chown 7:8 /file; ln -s file /link"], check=True
        )
        file = await box.vm.agent.stat("/file", container=box.id)
        assert (file.mode & 0o7777, file.size, file.uid, file.gid) == (0o640, 6, 7, 8)
        link = await box.vm.agent.stat("/link", container=box.id)
        assert link.link_target == "file"


@scenario("container stop idempotency")
def test_stop_twice(busybox_image: Image) -> None:
    with firkin.Container.launch("busybox", ["sleep", "600"]) as box:
        first = box.stop(grace=0)
        assert box.stop(grace=60) == first
    box.close()


@scenario("container useInit basic")
def test_init(special: firkin.Container) -> None:
    assert special.run(["cat", "/proc/1/comm"], text=True).stdout != "sleep\n"
    sleeps = str(special.run(["sh", "-c", "grep -lx sleep /proc/[0-9]*/comm"], text=True).stdout).split("/")
    assert "PPid:\t1\n" in str(special.run(["cat", f"/proc/{sleeps[2]}/status"], text=True).stdout)


@scenario("container useInit exit code propagation")
def test_init_propagates_the_exit_code(busybox_image: Image) -> None:
    assert firkin.run("busybox", ["sh", "-c", "exit 42"], use_init=True).returncode == 42


@scenario("container useInit signal forwarding")
def test_init_forwards_signals(busybox_image: Image) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    with firkin.Container.launch("busybox", ["sh", "-c", script], use_init=True, stdout=firkin.Stdio.PIPED) as box:
        assert box.process.stdout is not None
        assert box.process.stdout.read() == b"ready\n"
        box.kill(signal.SIGUSR1)
        assert box.wait(timeout=60).code == 9


@scenario("container useInit zombie reaping")
def test_init_reaps(special: firkin.Container) -> None:
    orphans = special.run(["sh", "-c", "for i in 1 2 3; do (sleep 0.05 & echo /proc/$!); done"], text=True, check=True)
    folders = str(orphans.stdout).split()
    assert len(folders) == 3
    # A zombie keeps its folder: without somebody who reaps, this has no end.
    special.run(["sh", "-c", "while ls -d $* 2>/dev/null; do sleep 0.05; done", "sh", *folders], check=True, timeout=60)
