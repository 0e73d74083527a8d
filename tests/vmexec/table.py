"""The table of specifications that vmexec and crun must make the same of."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.vmexec import bpf
from tests.vmexec.rig_vm import Row
from tests.vmexec.specs import DEFAULT_CAPABILITIES, MASKED, PATH, base, changed, mount

ROOT = "/c/rootfs"
CGROUP = "/sys/fs/cgroup"


@dataclass(frozen=True)
class Case:
    """One row: what is changed in the base specification, by path with dots.

    `crun` is said to crun alone, where it has another way to say the same. `only` are facts that crun 1.8 gets wrong or
    (`crun_cannot`: it does not start the program at all) cannot show, with their right values. `fails` is vmexec's exit
    code where no program may run; crun may not run it either, unless `crun_runs`. `neutral` rows change nothing that
    can be seen; every other one must be told apart from its mutant: itself without the change, but with `keep`, the
    paths and ("mounts") mounts that only make the change visible.
    """

    name: str
    set: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    crun: Mapping[str, Any] = field(default_factory=dict)
    exec: Mapping[str, Any] | None = None
    tty: bool = False
    only: Mapping[str, Any] = field(default_factory=dict)
    crun_cannot: bool = False
    fails: int | None = None
    crun_runs: bool = False
    neutral: bool = False
    keep: tuple[str, ...] = ()

    def row(self) -> Row:
        """As the rig takes it."""
        spec = base(ROOT, "/bin/probe", *self.words)
        spec["mounts"] += self.mounts
        if self.exec is not None:
            spec["process"]["args"] = ["/bin/probe", "pause"]
        for path, value in self.set.items():
            spec = changed(spec, path, value)
        theirs = spec
        for path, value in self.crun.items():
            theirs = changed(theirs, path, value)
        # crun always sets HOME; vmexec where it is asked.
        spec = copy.deepcopy(spec)
        spec.setdefault("annotations", {})["dev.firkin.env.home"] = "1"
        if self.exec is None:
            return Row(self.name, spec, theirs, tty=self.tty)
        process = spec["process"] | {"args": ["/bin/probe", *self.words]} | self.exec
        annotations = spec["annotations"] | process.pop("annotations", {})
        return Row(self.name, spec, theirs, {"process": process, "annotations": annotations}, process, tty=self.tty)

    def mutant(self) -> Row | None:
        """The row without what it is about, for vmexec alone; none if there is nothing to take away."""
        if self.fails is not None or self.neutral:
            return None
        kept = {path: value for path, value in self.set.items() if path in self.keep}
        mounts = self.mounts if "mounts" in self.keep else ()
        about_words = len(kept) == len(self.set) and mounts == self.mounts and not self.exec
        case = Case(
            f"{self.name} (mutant)",
            kept,
            () if about_words else self.words,
            mounts,
            exec=None if self.exec is None else {},
            tty=self.tty and "process.terminal" in kept,
        )
        return replace(case.row(), crun=None, crun_exec=None)


def _caps(**sets: list[str]) -> dict[str, Any]:
    return {"process.capabilities": sets}


_D = DEFAULT_CAPABILITIES
_ALL_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
_ANN = {"uid": 1000, "gid": 100}
_ANN_GROUPS = {"uid": 1000, "gid": 100, "additionalGids": [29, 50]}

USERS = [
    Case("uid and gid", {"process.user": {"uid": 1000, "gid": 100}}),
    Case("uid unknown to the image", {"process.user": {"uid": 4242, "gid": 4243}}),
    Case("gid alone", {"process.user": {"uid": 0, "gid": 7}}),
    Case("additional gids", {"process.user": {"uid": 0, "gid": 0, "additionalGids": [7, 9, 7000]}}),
    Case("user name", {"process.user": {"username": "ann"}}, crun={"process.user": _ANN_GROUPS}),
    Case("user name over numbers", {"process.user": {"username": "ann", "uid": 3}}, crun={"process.user": _ANN_GROUPS}),
    Case("numeric user name", {"process.user": {"username": "1000"}}, crun={"process.user": _ANN_GROUPS}),
    Case(
        "user and group", {"process.user": {"username": "ann:video"}}, crun={"process.user": {"uid": 1000, "gid": 44}}
    ),
    Case("uid and group", {"process.user": {"username": "1000:44"}}, crun={"process.user": {"uid": 1000, "gid": 44}}),
    Case("unknown uid as a name", {"process.user": {"username": "77"}}, crun={"process.user": {"uid": 77, "gid": 0}}),
    Case(
        "group of the root user", {"process.user": {"username": ":staff"}}, crun={"process.user": {"uid": 0, "gid": 50}}
    ),
    Case(
        "group added by name",
        {"annotations": {"dev.firkin.group_add": "video,7"}},
        crun={"process.user": {"uid": 0, "gid": 0, "additionalGids": [44, 7]}},
    ),
    Case("umask", {"process.user": {"uid": 0, "gid": 0, "umask": 0o77}}),
    Case("umask of nothing", {"process.user": {"uid": 0, "gid": 0, "umask": 0}}),
    Case("user without home in passwd", {"process.user": {"uid": 55, "gid": 0}}),
]

PROCESS = [
    Case("base", neutral=True),
    Case("arguments", words=("a b", 'quote"', "umlaut ä", "", "exit:0")),
    Case("exit code", words=("exit:7",)),
    Case("exit code 255", words=("exit:255",)),
    Case("environment", {"process.env": [PATH, "A=1", "B=", "C=with = and space"]}),
    Case("empty environment", {"process.env": []}),
    Case("HOME given", {"process.env": [PATH, "HOME=/elsewhere"]}),
    Case("cwd", {"process.cwd": "/home/ann"}),
    Case("cwd missing", {"process.cwd": "/made/on/the/way"}, words=("stat:/made", "stat:/made/on/the/way")),
    Case("cwd in a mount", {"process.cwd": "/dev/shm/x"}),
    Case("found in PATH", {"process.args": ["probe"]}),
    Case("found in the second part of PATH", {"process.args": ["probe"], "process.env": ["PATH=/home:/bin"]}),
    Case("relative program", {"process.args": ["./probe"], "process.cwd": "/bin"}),
    Case("script", {"process.args": ["/bin/script", "word"]}),
    Case("program missing", {"process.args": ["/bin/none"]}, fails=127),
    Case("program not in PATH", {"process.args": ["none"]}, fails=127),
    Case("program is a folder", {"process.args": ["/home"]}, fails=126),
    Case("program is not executable", {"process.args": ["/etc/passwd"]}, fails=126),
    Case("program below a file", {"process.args": ["/etc/passwd/x"]}, fails=127),
    Case("interpreter missing", {"process.args": ["/bin/lost-interpreter"]}, fails=127),
    Case("script without an interpreter", {"process.args": ["/bin/no-shebang"]}, fails=126),
    Case("no_new_privs off", {"process.noNewPrivileges": False}),
    Case("oom_score_adj", {"process.oomScoreAdj": 500}),
    Case("oom_score_adj below zero", {"process.oomScoreAdj": -500}),
    Case("apparmor unconfined", {"process.apparmorProfile": "unconfined"}, neutral=True),
    Case("apparmor profile unknown", {"process.apparmorProfile": "unknown"}, fails=125),
    Case("selinux label without selinux", {"process.selinuxLabel": "a:b:c"}, fails=125),
    Case("personality", {"linux.personality": {"domain": "LINUX32"}}),
    Case("personality of 64 bits", {"linux.personality": {"domain": "LINUX"}}, neutral=True),
    Case(
        "scheduler",
        {"process.scheduler": {"policy": "SCHED_FIFO", "priority": 5}},
        only={"scheduler": 1, "priority": 5},
    ),
    Case("nice", {"process.scheduler": {"policy": "SCHED_BATCH", "nice": 7}}, only={"scheduler": 3, "nice": 7}),
    Case(
        "io priority",
        {"process.ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6}},
        only={"io priority": 2 << 13 | 6},
    ),
    Case("terminal", {"process.terminal": True}, tty=True),
    Case(
        "terminal of a size",
        {"process.terminal": True, "process.consoleSize": {"width": 101, "height": 33}},
        tty=True,
        keep=("process.terminal",),
    ),
    Case(
        "terminal of a user",
        {"process.terminal": True, "process.user": _ANN},
        words=("stat:/dev/console",),
        tty=True,
        keep=("process.terminal",),
    ),
]

CAPABILITIES = [
    Case("no capabilities", _caps()),
    Case(
        "all capabilities",
        {"process.capabilities": {s: [*_D, "CAP_SYS_ADMIN", "CAP_NET_ADMIN"] for s in _ALL_SETS[:3]}},
    ),
    Case("bounding only", _caps(bounding=_D)),
    Case("permitted, not effective", _caps(bounding=_D, permitted=_D), neutral=True),
    Case("inheritable", _caps(bounding=_D, permitted=_D, effective=_D, inheritable=["CAP_CHOWN", "CAP_KILL"])),
    Case("ambient", {"process.capabilities": dict.fromkeys(_ALL_SETS, _D)}),
    Case("one capability", {"process.capabilities": {s: ["CAP_SYS_TIME"] for s in _ALL_SETS[:3]}}),
    Case("user with ambient", {"process.user": _ANN, "process.capabilities": {s: ["CAP_NET_RAW"] for s in _ALL_SETS}}),
    Case("user with inheritable", {"process.user": _ANN, **_caps(bounding=_D, permitted=_D, inheritable=_D)}),
    Case("user without bounding", {"process.user": _ANN, **_caps()}),
]

RLIMITS = [
    Case(f"rlimit {name}", {"process.rlimits": [{"type": f"RLIMIT_{name}", "soft": soft, "hard": hard}]})
    for name, soft, hard in [
        ("AS", 1 << 30, 1 << 31),
        ("CORE", 0, 4096),
        ("CPU", 100, 200),
        ("DATA", 1 << 28, 1 << 29),
        ("FSIZE", 1 << 20, 1 << 21),
        ("LOCKS", 5, 6),
        ("MEMLOCK", 4096, 8192),
        ("MSGQUEUE", 1000, 2000),
        ("NICE", 3, 4),
        ("NOFILE", 100, 200),
        ("NPROC", 10, 20),
        ("RSS", 4096, 8192),
        ("RTPRIO", 1, 2),
        ("RTTIME", 1000000, 2000000),
        ("SIGPENDING", 50, 60),
        ("STACK", 1 << 20, 1 << 21),
    ]
]

NAMESPACES = [
    Case(f"without {kind} namespace", {"linux.namespaces": [{"type": k} for k in kinds], **more})
    for kind, kinds, more in [
        ("pid", ("mount", "ipc", "uts", "cgroup"), {}),
        ("ipc", ("pid", "mount", "uts", "cgroup"), {}),
        ("uts", ("pid", "mount", "ipc", "cgroup"), {"hostname": ""}),
        ("cgroup", ("pid", "mount", "ipc", "uts"), {}),
    ]
]
_NAMESPACES = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")]
NAMESPACES += [
    Case("new network", {"linux.namespaces": [*_NAMESPACES, {"type": "network"}]}, words=("read:/proc/net/dev",)),
    Case(
        "new time",
        {
            "linux.namespaces": [*_NAMESPACES, {"type": "time"}],
            "linux.timeOffsets": {"boottime": {"secs": 200000, "nanosecs": 5}, "monotonic": {"secs": 7, "nanosecs": 0}},
        },
        crun_cannot=True,
        only={
            "ns/time": "own",
            "timens_offsets": "monotonic           7         0\nboottime       200000         5\n",
            "boot clock is ahead": 1,
        },
    ),
    Case("hostname", {"hostname": "another.name"}),
    Case("domainname", {"domainname": "domain.test"}, only={"domainname": "domain.test"}),
    *(
        Case(
            f"given {kind} namespace",
            {
                "linux.namespaces": [
                    *(entry for entry in _NAMESPACES if entry["type"] != kind),
                    {"type": kind, "path": f"/run/ns/{file}"},
                ],
                **({"hostname": ""} if kind == "uts" else {}),
            },
        )
        for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"))
    ),
]


def _tmpfs(*options: str) -> tuple[dict[str, Any], ...]:
    return (mount("/mnt", "tmpfs", "tmpfs", *options),)


def _bind(source: str, *options: str, destination: str = "/mnt") -> tuple[dict[str, Any], ...]:
    return (mount(destination, "bind", source, *options),)


MOUNTS = [
    *(
        Case(f"tmpfs {' '.join(options)}", mounts=_tmpfs(*options), words=("write:/mnt/x", "stat:/mnt"))
        for options in [
            (),
            ("ro",),
            ("rw", "nosuid"),
            ("nodev",),
            ("noexec",),
            ("nosuid", "suid"),
            ("noatime",),
            ("strictatime",),
            ("nodiratime",),
            ("relatime", "nodiratime"),
            ("sync",),
            ("dirsync",),
            ("lazytime",),
            ("size=64k",),
            ("mode=1770", "uid=5", "gid=6"),
            ("nr_inodes=10", "size=1m"),
            ("private",),
            ("rprivate",),
            ("shared",),
            ("rshared",),
            ("slave",),
            ("unbindable",),
            ("defaults",),
        ]
    ),
    *(
        Case(
            f"bind {' '.join(options)}",
            mounts=_bind("/vol/dir", *options),
            words=("write:/mnt/x", "write:/mnt/below/x"),
        )
        for options in [
            ("bind",),
            ("rbind",),
            ("bind", "ro"),
            ("rbind", "ro"),
            ("rbind", "rro"),
            ("bind", "nosuid", "nodev", "noexec"),
            ("bind", "noatime"),
            ("rbind", "rnosuid", "rnodev"),
            ("rbind", "rnoexec"),
            ("rbind", "rprivate"),
            ("rbind", "rslave"),
            ("rbind", "rshared"),
            ("bind", "unbindable"),
        ]
    ),
    Case(
        "tmpfs nosymfollow",
        mounts=_tmpfs("nosymfollow"),
        crun_cannot=True,
        only={"mount//mnt": "/ rw,relatime,nosymfollow [] tmpfs tmpfs rw,inode64", "root/mnt": "41777 0:0 0:0 "},
    ),
    Case(
        "bind rbind rnoatime",
        mounts=_bind("/vol/dir", "rbind", "rnoatime"),
        crun_cannot=True,
        only={
            "mount//mnt": "/vol/dir rw,noatime [] tmpfs tmpfs rw,inode64",
            "mount//mnt/below": "/ rw,noatime [] tmpfs below rw,inode64",
            "root/mnt": "40755 0:0 0:0 ",
        },
    ),
    Case(
        "type bind alone",
        mounts=_bind("/vol/dir"),
        crun_cannot=True,
        only={"mount//mnt": "/vol/dir rw,relatime [] tmpfs tmpfs rw,inode64", "root/mnt": "40755 0:0 0:0 "},
    ),
    Case(
        "bind of a file",
        mounts=_bind("/vol/file", "bind", destination="/mnt/deep/file"),
        words=("stat:/mnt/deep/file",),
    ),
    Case("bind of a file read-only", mounts=_bind("/vol/file", "bind", "ro", destination="/f"), words=("write:/f",)),
    Case("bind over a file", mounts=_bind("/vol/file", "bind", destination="/etc/passwd"), words=("read:/etc/passwd",)),
    Case("bind of what is missing", mounts=_bind("/vol/none", "bind"), fails=125),
    Case("mount point in a mount", mounts=(*_tmpfs(), mount("/mnt/a/b", "tmpfs", "x")), words=("stat:/mnt/a",)),
    Case(
        "mount point in a read-only tmpfs",
        mounts=(*_tmpfs("ro"), mount("/mnt/a", "tmpfs", "x")),
        words=("write:/mnt/y",),
    ),
    Case("two mounts in one place", mounts=(*_tmpfs("size=64k"), *_tmpfs("size=128k"))),
    Case(
        "mount point through a link that leads nowhere",
        mounts=(mount("/link/x", "tmpfs", "x"),),
        crun_cannot=True,
        only={"mount//linked/x": "/ rw,relatime [] tmpfs x rw,inode64", "root/linked": "40755 0:0 0:0 "},
    ),
    Case("mount point with dots", mounts=(mount("/a/../../../b/./c", "tmpfs", "x"),), words=("list:/b",)),
    Case("tmpcopyup", mounts=(mount("/etc", "tmpfs", "x", "tmpcopyup"),), words=("list:/etc", "read:/etc/group")),
    Case("remount", mounts=(*_tmpfs(), mount("/mnt", "tmpfs", "tmpfs", "remount", "ro", "size=8k"))),
    Case("overlay", mounts=(mount("/mnt", "overlay", "overlay", "lowerdir=/vol/dir:/tree"),), words=("list:/mnt",)),
    Case("ramfs", mounts=(mount("/mnt", "ramfs", "ramfs", "noexec"),)),
    Case("second proc", mounts=(mount("/mnt", "proc", "proc", "hidepid=invisible"),)),
    Case("writable sysfs", mounts=(mount("/mnt", "sysfs", "sysfs"),), words=("stat:/mnt/kernel",)),
    Case(
        "cgroup as a type",
        {"linux.cgroupsPath": "/firkin/t"},
        mounts=(mount(CGROUP, "cgroup", "cgroup", "nosuid", "ro"),),
        words=(f"list:{CGROUP}",),
    ),
    Case(
        "cgroup without its namespace",
        {"linux.cgroupsPath": "/firkin/t", "linux.namespaces": _NAMESPACES[:-1]},
        mounts=(mount(CGROUP, "cgroup2", "cgroup2"),),
        words=(f"read:{CGROUP}/cgroup.events",),
    ),
    Case("unknown file system", mounts=(mount("/mnt", "nofs", "x"),), fails=125),
    *(
        Case(f"root {kind}", {"linux.rootfsPropagation": kind}, neutral="shared" not in kind and kind != "unbindable")
        for kind in ("shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable")
    ),
    Case("root read-only", {"root.readonly": True}, words=("write:/x", "write:/dev/x", "write:/dev/shm/x")),
]

PATHS = [
    Case("nothing masked", {"linux.maskedPaths": []}, words=("stat:/proc/kcore",)),
    Case("masked file", {"linux.maskedPaths": ["/etc/passwd"]}, words=("read:/etc/passwd", "write:/etc/passwd")),
    Case("masked folder", {"linux.maskedPaths": ["/etc"]}, words=("list:/etc", "write:/etc/x")),
    Case("masked below a file", {"linux.maskedPaths": [*MASKED, "/etc/passwd/x"]}, neutral=True, crun_cannot=True),
    Case("nothing read-only", {"linux.readonlyPaths": []}, words=("write:/proc/sys/kernel/domainname",)),
    Case("read-only file", {"linux.readonlyPaths": ["/etc/passwd"]}, words=("write:/etc/passwd", "write:/etc/x")),
    Case("read-only folder", {"linux.readonlyPaths": ["/home"]}, words=("write:/home/x", "write:/home/ann/x")),
]


def _device(path: str, kind: str = "c", major: int = 1, minor: int = 3, **more: Any) -> dict[str, Any]:
    return {"path": path, "type": kind, "major": major, "minor": minor, **more}


DEVICES = [
    Case("character device", {"linux.devices": [_device("/dev/kmsg", minor=11, fileMode=0o640)]}),
    Case("unbuffered device", {"linux.devices": [_device("/dev/u", "u", 10, 229)]}),
    Case("default device with another mode", {"linux.devices": [_device("/dev/full", minor=7, fileMode=0o600)]}),
    Case("block device", {"linux.devices": [_device("/dev/disk", "b", 254, 0, fileMode=0o600, uid=5, gid=6)]}),
    Case("fifo", {"linux.devices": [_device("/dev/pipe", "p", 0, 0, fileMode=0o620)]}),
    Case("device in a folder", {"linux.devices": [_device("/dev/net/tun", "c", 10, 200)]}, words=("list:/dev/net",)),
    Case("device outside /dev", {"linux.devices": [_device("/mine/null")]}, words=("list:/mine",)),
    Case("device of an unknown type", {"linux.devices": [_device("/dev/x", "x")]}, fails=125, crun_runs=True),
    Case("no devpts", {"mounts": [mount("/proc", "proc", "proc"), mount("/dev", "tmpfs", "tmpfs")]}),
]

SYSCTLS = [
    Case(f"sysctl {key}", {"linux.sysctl": {key: value}}, words=(f"read:/proc/sys/{key.replace('.', '/')}",))
    for key, value in [
        ("kernel.shmmax", "123456"),
        ("kernel.msgmax", "4321"),
        ("kernel.sem", "100 200 30 40"),
        ("fs.mqueue.msg_max", "20"),
    ]
]
SYSCTLS += [
    Case(
        "sysctl of a new network",
        {
            "linux.namespaces": [*_NAMESPACES, {"type": "network"}],
            "linux.sysctl": {"net.ipv4.ip_forward": "1", "net.core.somaxconn": "77"},
        },
        words=("read:/proc/sys/net/ipv4/ip_forward", "read:/proc/sys/net/core/somaxconn"),
        keep=("linux.namespaces",),
    ),
    Case("sysctl unknown", {"linux.sysctl": {"kernel.shm_nothing": "1"}}, fails=125),
]


def _resources(name: str, resources: dict[str, Any], *files: str, **more: Any) -> Case:
    return Case(
        f"cgroup {name}",
        {"linux.cgroupsPath": "/firkin/t", "linux.resources": resources},
        mounts=(mount(CGROUP, "cgroup2", "cgroup2"),),
        words=tuple(f"read:{CGROUP}/{file}" for file in files or ("cgroup.controllers",)),
        **({"keep": ("linux.cgroupsPath", "mounts")} | more),
    )


CGROUPS = [
    _resources("path", {}, "cgroup.events", keep=()),
    Case("cgroup without a namespace", {"linux.cgroupsPath": "/firkin/t", "linux.namespaces": _NAMESPACES[:-1]}),
    _resources("cpu shares", {"cpu": {"shares": 512}}, "cpu.weight"),
    _resources("cpu shares least", {"cpu": {"shares": 2}}, "cpu.weight"),
    _resources("cpu shares most", {"cpu": {"shares": 262144}}, "cpu.weight"),
    _resources("cpu quota", {"cpu": {"quota": 50000, "period": 200000}}, "cpu.max"),
    _resources("cpu quota alone", {"cpu": {"quota": 50000}}, "cpu.max"),
    _resources("cpu period alone", {"cpu": {"period": 50000}}, "cpu.max"),
    _resources("cpuset", {"cpu": {"cpus": "0", "mems": "0"}}, "cpuset.cpus", "cpuset.mems"),
    _resources("memory limit", {"memory": {"limit": 67108864}}, "memory.max"),
    _resources("memory unlimited", {"memory": {"limit": -1}}, "memory.max", neutral=True),
    _resources("memory reservation", {"memory": {"reservation": 33554432}}, "memory.low"),
    _resources("swap", {"memory": {"limit": 67108864, "swap": 100663296}}, "memory.swap.max", "memory.max"),
    _resources("swap unlimited", {"memory": {"limit": 67108864, "swap": -1}}, "memory.swap.max", neutral=True),
    _resources("pids", {"pids": {"limit": 42}}, "pids.max"),
    _resources("pids unlimited", {"pids": {"limit": -1}}, "pids.max", neutral=True),
    _resources("io weight", {"blockIO": {"weight": 500}}, "io.weight", "io.bfq.weight"),
    _resources("unified", {"unified": {"memory.high": "50331648", "cpu.weight": "77"}}, "memory.high", "cpu.weight"),
    _resources("unified over the rest", {"pids": {"limit": 9}, "unified": {"pids.max": "8"}}, "pids.max"),
    _resources("unknown file", {"unified": {"memory.nothing": "1"}}, fails=125),
    _resources("swap below memory", {"memory": {"limit": 67108864, "swap": 1048576}}, fails=125),
]


def _filter(name: str, default: str, rules: dict[str, tuple[str, int]], **more: Any) -> Case:
    settings = more.pop("set", {})
    ours = settings | {"annotations": bpf.annotations(default, rules)}
    return Case(f"seccomp {name}", ours, crun={"linux.seccomp": bpf.profile(default, rules)}, **more)


_EPERM = ("SCMP_ACT_ERRNO", 1)
SECCOMP = [
    _filter("errno", "SCMP_ACT_ALLOW", {"chmod": _EPERM, "keyctl": ("SCMP_ACT_ERRNO", 38)}),
    _filter("log", "SCMP_ACT_ALLOW", {"mkdir": ("SCMP_ACT_LOG", 0)}),
    _filter("without no_new_privs", "SCMP_ACT_ALLOW", {"mkdir": _EPERM}, set={"process.noNewPrivileges": False}),
    _filter(
        "of a user without no_new_privs",
        "SCMP_ACT_ALLOW",
        {"unshare": _EPERM},
        set={"process.noNewPrivileges": False, "process.user": _ANN, "process.capabilities": {}},
    ),
    _filter("of a user", "SCMP_ACT_ALLOW", {"personality": _EPERM}, set={"process.user": _ANN}),
]

EXECS = [
    Case("exec", exec={}, neutral=True),
    Case("exec exit code", exec={}, words=("exit:9",)),
    Case("exec signal", exec={}, words=("signal:9",)),
    Case("exec of SIGTERM", exec={}, words=("signal:15",)),
    Case("exec user", exec={"user": {"uid": 1000, "gid": 100, "additionalGids": [29]}}),
    Case("exec umask", exec={"user": {"uid": 0, "gid": 0, "umask": 0o27}}),
    Case("exec environment", exec={"env": [PATH, "X=1", "HOME=/h"]}),
    Case("exec cwd", exec={"cwd": "/home/ann"}),
    Case("exec without capabilities", exec={"capabilities": {}}),
    Case("exec with more capabilities", exec={"capabilities": {s: [*_D, "CAP_SYS_ADMIN"] for s in _ALL_SETS[:3]}}),
    Case("exec without no_new_privs", exec={"noNewPrivileges": False}),
    Case("exec rlimit", exec={"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]}),
    Case("exec oom_score_adj", exec={"oomScoreAdj": 300}, only={"oom_score_adj": "300\n"}),
    Case(
        "exec in its cgroup",
        {"linux.cgroupsPath": "/firkin/t", "linux.namespaces": _NAMESPACES[:-1]},
        exec={},
        keep=("linux.namespaces",),
    ),
    Case("exec terminal", exec={"terminal": True}, tty=True),
    Case("exec program missing", exec={"args": ["none"]}, fails=127),
    Case("exec apparmor unconfined", exec={"apparmorProfile": "unconfined"}, neutral=True),
    Case(
        "exec seccomp",
        crun={"linux.seccomp": bpf.profile("SCMP_ACT_ALLOW", {"chmod": _EPERM})},
        exec={"annotations": bpf.annotations("SCMP_ACT_ALLOW", {"chmod": _EPERM})},
    ),
]

TABLE = [
    *PROCESS,
    *USERS,
    *CAPABILITIES,
    *RLIMITS,
    *NAMESPACES,
    *MOUNTS,
    *PATHS,
    *DEVICES,
    *SYSCTLS,
    *CGROUPS,
    *SECCOMP,
    *EXECS,
]
