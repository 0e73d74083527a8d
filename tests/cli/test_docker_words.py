"""What users of `docker run` type: every flag is served, or refused by name with the reason."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from firkin.cli._words import about_command, about_option
from firkin.cli.main import cli, run
from firkin.cli.run import command as run_command
from firkin.core.option_inputs import container_options
from firkin.oci import Image
from tests.cli.test_options import options

# `docker run --help` and `docker exec --help` of Docker 28, without what is for Windows only.
DOCKER_RUN = """
    --add-host --annotation --attach --blkio-weight --blkio-weight-device --cap-add --cap-drop --cgroup-parent
    --cgroupns --cidfile --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --cpu-shares --cpus
    --cpuset-cpus --cpuset-mems --detach --device --device-cgroup-rule --device-read-bps --device-read-iops
    --device-write-bps --device-write-iops --disable-content-trust --dns --dns-option --dns-opt --dns-search
    --domainname --entrypoint --env --env-file --expose --gpus --group-add --health-cmd --health-interval
    --health-retries --health-start-interval --health-start-period --health-timeout --help --hostname --init
    --interactive --ip --ip6 --ipc --isolation --kernel-memory --label --label-file --link --link-local-ip
    --log-driver --log-opt --mac-address --memory --memory-reservation --memory-swap --memory-swappiness --mount
    --name --net --network --network-alias --no-healthcheck --oom-kill-disable --oom-score-adj --pid
    --pids-limit --platform --privileged --publish --publish-all --pull --read-only --restart --rm --runtime
    --security-opt --shm-size --sig-proxy --stop-signal --stop-timeout --storage-opt --sysctl --tmpfs --tty
    --ulimit --use-api-socket --user --userns --uts --volume --volume-driver --volumes-from --workdir -a -c -d
    -e -h -i -l -m -P -p -t -u -v -w
"""
DOCKER_COMMANDS = """
    attach build buildx commit compose container context cp create diff events exec export history image images
    import info inspect kill load login logout logs network node pause plugin port ps pull push rename restart
    rm rmi run save search secret service stack start stats stop swarm system tag top trust unpause update
    version volume wait
"""


def served() -> set[str]:
    return {name for param in run_command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("flag", DOCKER_RUN.split())
def test_every_flag_of_docker_run_is_served_or_refused_with_a_reason(flag: str) -> None:
    assert (flag in served()) != bool(about_option(flag))


@pytest.mark.parametrize("name", DOCKER_COMMANDS.split())
def test_every_command_of_docker_is_served_or_refused_with_a_reason(name: str) -> None:
    found = cli.get_command(click.Context(cli), name)
    assert (found is not None) or about_command(name)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "--gpus", "all", "busybox"], "firkin: --gpus means nothing here: a VM under Firkin has no GPU\n"),
        (["run", "-P", "busybox"], "firkin: -P means nothing here: say which: --publish\n"),
        (["ps", "-c"], "firkin: No such option '-c'."),
        (["image", "warm", "busybox", "--run", "it's"], 'firkin: "it\'s" is not a command: No closing quotation'),
        (["image", "save", "-o", "/no/such/x", "busybox"], "firkin: can't save the image to /no/such/x: No such file"),
        (["run", "--no-such", "x"], "firkin: No such option"),
        (["create", "busybox"], "firkin: there is no command 'create': a container lives as long as"),
        (["nosuch"], "firkin: No such command 'nosuch'."),
    ],
)
def test_the_reason_is_one_line(
    args: list[str], said: str, busybox_image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(args) == 125
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.count("\n") == 1


def test_other_spellings_mean_the_same() -> None:
    assert options("-h", "box").hostname == "box"
    assert options("--net", "none").network == "none"
    assert options("--annotation", "a=b").labels == {"a": "b"}
    assert options("--expose", "80") == options()
    assert options("--cpu-quota", "150000").cpus == options("--cpu-quota", "75000", "--cpu-period", "50000").cpus == 1.5
    assert options("--cpus", "3", "--cpu-quota", "1000").cpus == 3
    assert container_options(("x",), cpus=1.5).vcpus == 2


def test_a_file_for_the_id_must_be_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there"
    there.touch()
    assert run(["run", "--cidfile", str(there), "busybox"]) == 125
    assert "name a file that is not there" in capsys.readouterr().err
    new = tmp_path / "new"
    assert run(["run", "--cidfile", str(new), "--memory", "1k", "busybox"]) == 125
    assert not new.exists()
