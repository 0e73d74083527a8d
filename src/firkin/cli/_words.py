"""What to say of commands and options of Docker's that have no meaning here. Only errors need it."""

from __future__ import annotations

__all__ = ["about_command", "about_option"]

_OWNED = "a container lives as long as `firkin run` does, or in the background with `run -d`"
_ONE_HOST = "Firkin is for one host"
_COMMANDS = {
    "build": "make images with buildah or docker, then: firkin image load",
    "buildx": "make images with buildah or docker, then: firkin image load",
    "commit": "keep changes with --writable-layer or a volume",
    "compose": "Firkin has no compose files",
    "container": "leave the word out: firkin ps, firkin stop, …",
    "context": _ONE_HOST,
    "create": f"{_OWNED}: firkin run",
    "diff": "firkin image ls IMAGE shows an image's files",
    "events": "firkin wait tells of a container's end",
    "info": "firkin doctor, firkin version",
    "node": _ONE_HOST,
    "plugin": "Firkin has no plugins",
    "export": "firkin image save writes an image",
    "rename": "a name is given once: firkin run --name",
    "restart": f"{_OWNED}: stop it, run it again",
    "secret": _ONE_HOST,
    "search": "name the image with its registry: firkin pull REGISTRY/NAME",
    "service": _ONE_HOST,
    "stack": _ONE_HOST,
    "start": f"{_OWNED}: firkin run",
    "swarm": _ONE_HOST,
    "system": "firkin doctor, firkin image prune, firkin volume prune",
    "top": "firkin exec CONTAINER ps",
    "trust": "signatures are not looked at; name images by digest",
}

_KERNEL = "each container has a kernel of its own: there is no host's namespace to share"
_CGROUP = "the VM is the limit: --cpus, --memory, --pids-limit"
_BLOCK_IO = "the VM's disk is not shared with other containers"
_HEALTH = "health checks are not run"
_LOGS = "there is one kind of log: firkin logs"
_OPTIONS = {
    "--attach": "standard output and error are always attached, input with -i",
    "--blkio-weight": _BLOCK_IO,
    "--blkio-weight-device": _BLOCK_IO,
    "--cgroup-parent": _CGROUP,
    "--cgroupns": _KERNEL,
    "--cpu-rt-period": _CGROUP,
    "--cpu-rt-runtime": _CGROUP,
    "--cpu-shares": _CGROUP,
    "--cpuset-cpus": "QEMU's processors are the host's scheduler's to place: taskset firkin run …",
    "--cpuset-mems": "numactl firkin run …",
    "--device": "the host's devices are not the guest's; a disk comes by --mount type=block",
    "--device-cgroup-rule": "the host's devices are not the guest's",
    "--disable-content-trust": "signatures are not looked at; name images by digest",
    "--domainname": "give a full name: --hostname a.example.org",
    "--gpus": "a VM under Firkin has no GPU",
    "--health-cmd": _HEALTH,
    "--health-interval": _HEALTH,
    "--health-retries": _HEALTH,
    "--health-start-interval": _HEALTH,
    "--health-start-period": _HEALTH,
    "--health-timeout": _HEALTH,
    "--ip": "addresses are given by the network",
    "--ip6": "addresses are given by the network",
    "--ipc": _KERNEL,
    "--isolation": "every container is a VM",
    "--kernel-memory": _CGROUP,
    "--link": "containers do not reach one another: publish a port with -p",
    "--link-local-ip": "addresses are given by the network",
    "--log-driver": _LOGS,
    "--log-opt": _LOGS,
    "--memory-reservation": "a VM takes memory as it is used; firkin update --memory-high slows a container down",
    "--memory-swap": "a VM has no swap: --memory",
    "--memory-swappiness": "a VM has no swap: --memory",
    "--network-alias": "containers do not reach one another: publish a port with -p",
    "--no-healthcheck": _HEALTH,
    "--oom-kill-disable": "without memory a VM stands still: --memory",
    "--pid": _KERNEL,
    "--publish-all": "say which: --publish",
    "--restart": "nothing outlives its owner: let a service manager run `firkin run`",
    "--runtime": "every container is a VM",
    "--storage-opt": "--disk SIZE",
    "--use-api-socket": "Firkin has no API socket",
    "--userns": _KERNEL,
    "--uts": _KERNEL,
    "--volume-driver": "volumes are disk images: firkin volume create",
    "--volumes-from": "name the volumes: -v NAME:/PATH",
}
_SHORT = {"-P": "--publish-all", "-a": "--attach", "-c": "--cpu-shares"}


def about_command(name: str) -> str:
    """Why there is no command `name`, and what there is; empty where nothing can be said."""
    return _COMMANDS.get(name, "")


def about_option(name: str, command: str = "run") -> str:
    """The same of an option of `docker run`, by its long name or Docker's letter for it."""
    return _OPTIONS.get(_SHORT.get(name, name), "") if command == "run" else ""
